"""From the host's memory to a device's: nobody waits for it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of the host on a device, in the order of what that device is asked for.

    A copy out of ordinary memory may wait for everything before it, so it goes by way of
    page-locked memory, which torch gives to nobody else before the copy has been made. A tensor
    that is on a device already stays there or goes straight to the other one.
    """
    if device.type != "cpu" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, dtype or tensor.dtype, non_blocking=True)
