"""A model that gives every picture back: for checking cameras and outputs, and for latency."""
