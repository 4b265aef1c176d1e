"""The small model that travels with the package: codec, words, weights."""
