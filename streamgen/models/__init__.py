"""Models: weights and arithmetic. They never import the engine and hold no state of a stream."""
