"""Thin programs around streamgen.serving: they parse, build and run, and compute nothing."""
