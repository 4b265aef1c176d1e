"""Muon for matrices, in the precision that the machine is fast at: torch's own is bfloat16 only."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# Quintic iteration (Jordan 2024, kellerjordan.github.io/posts/muon)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 5
# RMS of an update, so that AdamW's learning rates fit (Liu et al. 2025, arXiv:2502.16982, eq. 4)
RMS_MATCH = 0.2


def orthogonalise(matrices_BMN: Tensor) -> Tensor:
    """Move the singular values of a stack of matrices towards 1 by Newton-Schulz iterations."""
    is_tall = matrices_BMN.shape[1] > matrices_BMN.shape[2]
    x = matrices_BMN.mT if is_tall else matrices_BMN
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; matrices of one shape are handled as one stack."""

    def __init__(
        self,
        matrices: Iterable[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype,
    ) -> None:
        """`dtype` is the precision of the orthogonalisation alone."""
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in by_shape.items():
                stack = torch.stack([self._nesterov(matrix, group) for matrix in matrices])
                updates = orthogonalise(stack.to(self._dtype)).float()
                scale = RMS_MATCH * max(shape) ** 0.5
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update, alpha=-group["lr"] * scale)

    def _nesterov(self, matrix: Tensor, group: dict[str, float]) -> Tensor:
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        assert matrix.grad is not None
        state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
        return matrix.grad.lerp(state["momentum"], group["momentum"])
