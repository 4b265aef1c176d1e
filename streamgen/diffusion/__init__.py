"""The mathematics of noise: levels, paths, draws, motion and guidance. Knows no model."""
