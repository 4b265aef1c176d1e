"""Nothing in a tick waits for the device, and a steady stream takes no more memory."""

from __future__ import annotations

import gc

import pytest
import torch

from streamgen.diffusion.guidance import Guidance, GuidanceMode
from streamgen.engine.recipe import CacheMode
from streamgen.scheduling.policy import StreamBatch
from tests.small_engine import SmallEngine, VideoLikeStarter, small_recipe

# What copies a tensor to the host and waits for it; `bool`, `float` and `int` of a tensor do, too.
WAITING = (
    *("item", "tolist", "cpu", "numpy", "nonzero"),
    *("__bool__", "__float__", "__int__", "__index__", "__array__"),
)


def busy_engine(mode: CacheMode) -> SmallEngine:
    """Three sessions of other lengths, one guided, one with an input, all under way."""
    rig = SmallEngine(StreamBatch(), num_rows=16)
    guided = Guidance(GuidanceMode.FULL, 2.0)
    rig.open(small_recipe(steps=2, mode=mode), seed=1)
    rig.open(small_recipe(steps=3, mode=mode, guidance=guided, chunk_frames=2), seed=2)
    recipe = small_recipe(steps=2, mode=mode, guidance=Guidance(GuidanceMode.INITIALIZE, 2.0))
    rig.open(recipe, seed=3, starter=VideoLikeStarter(recipe, seed=3, max_chunks=10_000))
    rig.tick(12)
    return rig


@pytest.mark.parametrize("mode", list(CacheMode))
def test_a_steady_tick_never_waits_for_the_device(
    mode: CacheMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Host integers decide, so no number is ever read back from a tensor (rule 2 of the design)."""
    rig = busy_engine(mode)

    def refuse(tensor: torch.Tensor, *args: object, **kwargs: object) -> None:
        raise AssertionError("a tick waits for the device")

    with monkeypatch.context() as patched:
        for name in WAITING:
            patched.setattr(torch.Tensor, name, refuse)
        with pytest.raises(AssertionError, match="waits"):
            float(torch.zeros(()))
        rig.tick(8)


@pytest.mark.parametrize("mode", list(CacheMode))
def test_a_steady_stream_holds_no_more_tensors(mode: CacheMode) -> None:
    """Two hundred ticks later as many tensors are alive as before (decoded latents aside)."""
    rig = busy_engine(mode)

    def alive() -> int:
        for session in rig.engine._sessions.values():
            session.decoder.latents.clear()  # type: ignore[attr-defined]
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    period = 12  # ticks after which all three ladders stand as they did
    rig.tick(20 * period)  # time embeddings of the input's noise levels are kept, a bounded number
    before = alive()
    rig.tick(200 // period * period)
    assert alive() == before
