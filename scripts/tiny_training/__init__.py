"""The stages in which the tiny model is trained; `scripts/train_tiny.py` runs them."""
