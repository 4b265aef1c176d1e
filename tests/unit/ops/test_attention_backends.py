"""Times decide which attention is used; what is missing or wrong is left out with a reason."""

import pytest
import torch
from torch import Tensor

from streamgen.clock import MonotonicClock, SimulatedClock
from streamgen.errors import CapacityError
from streamgen.ops import attention_backends
from streamgen.ops.attention import attention
from streamgen.ops.attention_backends import AttentionShape, Trial, try_attentions
from streamgen.ops.operations import Attention

SHAPE = AttentionShape(rows=1, query_tokens=8, key_tokens=24, num_heads=2, head_dim=16)


def tried(clock: MonotonicClock | SimulatedClock) -> tuple[Attention, tuple[Trial, ...]]:
    return try_attentions(
        SHAPE,
        device=torch.device("cpu"),
        dtype=torch.float32,
        clock=clock,
        synchronise=lambda: None,
    )


def test_what_is_not_installed_is_left_out_with_a_reason() -> None:
    """On a CPU some attention of torch is left, every foreign one has said why it is not."""
    _, trials = tried(MonotonicClock())
    assert {trial.name for trial in trials} == set(attention_backends.candidates())
    assert trials[0].seconds is not None
    for trial in trials:
        assert (trial.seconds is None) == (trial.reason is not None)


def test_the_fastest_right_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong one would have been faster, and a broken one is no error."""
    clock = SimulatedClock()

    def taking(seconds: float, factor: float = 1.0) -> Attention:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            clock.sleep(seconds)
            return factor * attention(q, k, v)

        return attend

    def broken() -> Attention:
        raise OSError("libfast.so.3: no such file\nand more")

    made = {
        "slow": lambda: taking(3.0),
        "fast": lambda: taking(2.0),
        "wrong": lambda: taking(1.0, factor=1.1),
        "broken": broken,
    }
    monkeypatch.setattr(attention_backends, "candidates", lambda: made)
    _, trials = tried(clock)
    assert [(trial.name, trial.seconds) for trial in trials[:2]] == [("fast", 2.0), ("slow", 3.0)]
    reasons = {trial.name: trial.reason for trial in trials[2:]}
    assert reasons["broken"] == "OSError: libfast.so.3: no such file"
    assert "relative error 0.100" in str(reasons["wrong"])


def test_none_at_all_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 40 GiB")

    def absent() -> Attention:
        raise ImportError("no flash_attn")

    made = {"torch": lambda: full, "flash-attention 2": absent}
    monkeypatch.setattr(attention_backends, "candidates", lambda: made)
    with pytest.raises(CapacityError) as caught:
        tried(SimulatedClock())
    told = str(caught.value)
    assert "\n" not in told
    assert "1 rows of 8 tokens over 24 (torch: OutOfMemoryError: CUDA out of memory.)" in told
    assert told.endswith("lower picture.height, picture.width or cache.ring")
