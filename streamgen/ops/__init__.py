"""Pure functions on tensors: plain torch is the definition, kernels are an optimisation."""
