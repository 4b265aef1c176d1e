"""The project's one causal DiT, named and shaped as the native Wan 2.1 checkpoints are."""
