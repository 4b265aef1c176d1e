"""Triton kernels with the signatures of their definitions in streamgen.ops.

Imported lazily by streamgen.ops.backend alone; imports nothing of streamgen, so what it is given
it takes by shape. With TRITON_INTERPRET=1 every kernel runs on a CPU, for tests.
"""
