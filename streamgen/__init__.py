"""StreamGen: real-time streaming video diffusion."""
