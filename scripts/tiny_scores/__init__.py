"""How good and how fast the tiny model is: what `eval_tiny.py` and `bench_tiny.py` are made of."""
