"""Several processes for one model: who owns what, the ring between them, and who is alive."""
