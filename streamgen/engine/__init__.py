"""Sessions, the tick, and the executors that carry a batch through the model."""
