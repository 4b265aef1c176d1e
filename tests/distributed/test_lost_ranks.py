"""Ranks that die or freeze are noticed, and streams go on from what was seen of them."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from streamgen.clock import MonotonicClock
from streamgen.engine.recipe import CacheMode
from streamgen.errors import RankLostError
from streamgen.parallel.group import SILENCE_S
from streamgen.scheduling.policy import StreamBatch
from tests.distributed.small_ranks import PipelinedEngine, pipelined
from tests.small_engine import NOISE, Stream, VideoLikeStarter, small_recipe

CHUNKS = 14


def play_on(engine: PipelinedEngine, *streams: Stream) -> int:
    """Tick until these sessions have ended, as a Host does; returns how often ranks were lost."""
    losses = 0
    while not all(stream.session.has_ended for stream in streams):
        losses += _tick(engine)
    return losses


@pytest.mark.parametrize("mode", CacheMode)
def test_streams_go_on_when_any_rank_is_killed(mode: CacheMode) -> None:
    """Every chunk comes out once, in order, whichever rank died; nothing is left of the dead."""
    recipe = small_recipe(steps=2, mode=mode)
    with pipelined("layers", 2, num_passes=recipe.num_passes) as executor:
        engine = PipelinedEngine(StreamBatch(), executor)
        words = engine.open(recipe, seed=1, max_chunks=CHUNKS)
        video = engine.open(
            recipe, seed=2, starter=VideoLikeStarter(recipe, seed=2, max_chunks=CHUNKS)
        )
        losses = 0
        for rank in range(2):
            for _ in range(3):
                engine.engine.tick()
            before = executor.group.pids()
            os.kill(before[rank], signal.SIGKILL)
            seen = len(words.latents)
            while len(words.latents) < seen + 2 and not words.session.has_ended:
                losses += _tick(engine)
            assert before.keys() == executor.group.pids().keys()
            assert not any(_is_alive(pid) for pid in before.values())
        losses += play_on(engine, words, video)
        pids = executor.group.pids()
    assert losses == executor.num_restarts == 2
    assert words.decoder.pts_s == sorted(set(words.decoder.pts_s))
    assert len(words.latents) == len(video.latents) == CHUNKS
    assert video.decoder.pts_s == [float(chunk) for chunk in range(CHUNKS)]
    assert all(torch.isfinite(chunk).all() for chunk in (*words.latents, *video.latents))
    assert not any(_is_alive(pid) for pid in pids.values())


def test_a_frozen_rank_is_noticed_and_replaced() -> None:
    """No sign of life for two seconds is as good as death."""
    recipe = small_recipe(steps=2, mode=CacheMode.CLEAN)
    clock = MonotonicClock()
    with pipelined("steps", 2, num_passes=recipe.num_passes) as executor:
        engine = PipelinedEngine(StreamBatch(), executor)
        stream = engine.open(recipe, seed=1, max_chunks=5)
        engine.tick(4)
        frozen = executor.group.pids()[1]
        os.kill(frozen, signal.SIGSTOP)
        began_s = clock.now()
        with pytest.raises(RankLostError, match="rank 1 is lost: it has given no sign of life"):
            engine.tick(50)
        assert clock.now() - began_s < SILENCE_S + 2  # and what a busy machine adds
        executor.restart()
        engine.engine.recover(NOISE)
        assert not _is_alive(frozen)
        engine.finish(stream)
    assert len(stream.latents) == 5


def _tick(engine: PipelinedEngine) -> int:
    try:
        engine.engine.tick()
    except RankLostError:
        engine.pipeline.restart()
        engine.engine.recover(NOISE)
        return 1
    return 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
