"""Measuring a pipeline: how fast, how far from the limit of the machine, and what the rest is."""
