"""The composition root and the public faces of a stream."""
