"""Snapshots: a live stream goes on elsewhere, and what is no snapshot is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from streamgen import Host
from streamgen.clock import MonotonicClock
from streamgen.engine.recovery import Place
from streamgen.errors import ConfigError
from streamgen.media.sources.synthetic import moving_picture
from streamgen.serving.live import LiveHost
from streamgen.serving.live_facts import PresetFacts, Wishes
from streamgen.serving.live_stream import LiveStream
from streamgen.serving.snapshot import FORMAT, Snapshot, pack_snapshot, unpack_snapshot
from streamgen.types import Frame, PictureSize

SIZE = PictureSize(64, 64)
SMALL = ("picture.height=64", "picture.width=64", "model.num_threads=1")
TEXT, VIDEO, SAME = "tiny-cpu", "tiny-cpu-v2v", "identity-cpu"
WAIT_S = 20.0
Running = tuple[LiveHost, dict[str, PresetFacts]]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    clock = MonotonicClock()
    names = (TEXT, VIDEO, SAME)
    host = LiveHost(
        {name: partial(Host, name, overrides=SMALL, clock=clock) for name in names}, clock=clock
    )
    try:
        yield host, {facts.name: facts for facts in host.start()}
    finally:
        host.stop()


def next_frames(stream: LiveStream, count: int) -> list[Frame]:
    seen: list[Frame] = []
    while len(seen) < count:
        frame = stream.output.get(timeout_s=WAIT_S)
        assert frame is not None
        seen.append(frame)
    return seen


def rest_of(stream: LiveStream) -> list[Frame]:
    seen: list[Frame] = []
    while not stream.output.has_ended():
        frame = stream.output.get(timeout_s=WAIT_S)
        if frame is not None:
            seen.append(frame)
    return seen


def carried(snapshot: Snapshot) -> Snapshot:
    """As another machine gets it."""
    return unpack_snapshot(pack_snapshot(snapshot))


MODES = {
    "clean": (),
    "per_step": ("cache.mode=per_step",),
    "joint": ("cache.mode=joint", "cache.ring=4"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_moved_stream_goes_on_with_the_next_picture(mode: str):
    """No place of the stream is shown twice and none is left out."""
    clock = MonotonicClock()
    make = partial(Host, TEXT, overrides=(*SMALL, *MODES[mode]), clock=clock)
    host = LiveHost({TEXT: make}, clock=clock)
    try:
        (facts,) = host.start()
        before = host.open(Wishes(TEXT, "a red ball bouncing over a green field", 7), facts)
        seen = next_frames(before, 9)
        snapshot = carried(before.snapshot(leave=True).result(WAIT_S))
        seen += rest_of(before)
        after = host.open(snapshot.wishes, facts, snapshot=snapshot)
        seen += next_frames(after, 12)
    finally:
        host.stop()
    times = [frame.pts_s * facts.fps for frame in seen]
    np.testing.assert_allclose(times, range(len(seen)), atol=1e-6)


def test_a_moved_stream_shows_what_it_would_have_shown(running: Running):
    """Its next pictures are those of the stream that stayed, but for what a cache written anew
    changes; a stream that begins there is further away."""
    host, facts = running
    wishes = Wishes(TEXT, "a red ball bouncing over a green field", 7)
    stayed = host.open(wishes, facts[TEXT])
    pictures = {round(frame.pts_s * 16): frame.pixels for frame in next_frames(stayed, 48)}
    stayed.close().result(WAIT_S)
    before = host.open(wishes, facts[TEXT])
    next_frames(before, 9)
    snapshot = before.snapshot(leave=True).result(WAIT_S)
    after = host.open(snapshot.wishes, facts[TEXT], snapshot=snapshot)
    fresh = host.open(replace(wishes, seed=8), facts[TEXT])

    def distance(frames: list[Frame], first: int) -> float:
        return float(
            np.mean(
                [
                    np.abs(frame.pixels.astype(float) - pictures[first + index]).mean()
                    for index, frame in enumerate(frames)
                ]
            )
        )

    moved = next_frames(after, 4)
    first = round(moved[0].pts_s * 16)
    near = distance(moved, first)
    far = distance(next_frames(fresh, 4), first)
    after.close()
    fresh.close()
    assert near < far / 2, (near, far)


@pytest.mark.parametrize("preset", [VIDEO, SAME])
def test_a_moved_stream_with_an_input_takes_the_next_picture(running: Running, preset: str):
    host, facts = running

    def show(stream: LiveStream, first: int) -> list[Frame]:
        """Some clips, one after the other, so that none is dropped."""
        seen: list[Frame] = []
        for index in range(first, first + 12):
            stream.show(Frame(moving_picture(index, SIZE), index / 30, float(index)))
            if preset == SAME or index % 4 == 3:
                seen += next_frames(stream, 1)
                while (frame := stream.output.get(timeout_s=0.0)) is not None:
                    seen.append(frame)
        return seen

    before = host.open(Wishes(preset, "a pencil sketch", strength=None), facts[preset])
    show(before, 0)
    snapshot = carried(before.snapshot(leave=True).result(WAIT_S))
    rest_of(before)
    after = host.open(snapshot.wishes, facts[preset], snapshot=snapshot)
    second = show(after, 12)
    after.close()
    assert [frame.captured_s for frame in second] == [12.0 + n for n in range(len(second))]
    if preset == SAME:
        for frame in second:
            shown = moving_picture(int(frame.captured_s), SIZE)
            assert np.abs(frame.pixels.astype(int) - shown).max() <= 1


def test_a_stream_that_has_shown_nothing_begins_elsewhere(running: Running):
    host, facts = running
    before = host.open(Wishes(SAME, "any"), facts[SAME])
    snapshot = carried(before.snapshot(leave=True).result(WAIT_S))
    after = host.open(snapshot.wishes, facts[SAME], snapshot=snapshot)
    after.show(Frame(moving_picture(0, SIZE), 0.0, 0.0))
    assert next_frames(after, 1)[0].captured_s == 0.0
    after.close()


def test_a_snapshot_of_another_size_is_refused_and_the_others_go_on(running: Running):
    host, facts = running
    place = Place(torch.zeros(2, 8, 4, 4), next_chunk=2, pts_s=0.0, seed=0)
    wishes = Wishes(TEXT, "a red ball bouncing over a green field")
    stream = host.open(wishes, facts[TEXT], snapshot=Snapshot(wishes, "tiny", place))
    with pytest.raises(ConfigError, match="latents of 8x4x4, this preset is 'tiny' with"):
        stream.granted().result(WAIT_S)


SNAPSHOT = Snapshot(
    Wishes(TEXT, "a star", 3, None, 2), "tiny", Place(torch.ones(2, 3, 4, 5), 9, 0.5, 11)
)


def test_a_snapshot_survives_the_journey():
    again = carried(SNAPSHOT)
    assert (again.wishes, again.family) == (SNAPSHOT.wishes, "tiny")
    assert (again.place.next_chunk, again.place.pts_s, again.place.seed) == (9, 0.5, 11)
    assert torch.equal(again.place.latents_FCHW, SNAPSHOT.place.latents_FCHW)


@given(data=st.binary(max_size=300))
def test_bytes_that_are_no_snapshot_are_refused(data: bytes):
    with pytest.raises(ConfigError, match="not a snapshot"):
        unpack_snapshot(data)


@given(cut=st.integers(0, len(pack_snapshot(SNAPSHOT)) - 1))
def test_a_truncated_snapshot_is_refused(cut: int):
    with pytest.raises(ConfigError, match="not a snapshot"):
        unpack_snapshot(pack_snapshot(SNAPSHOT)[:cut])


@pytest.mark.parametrize(
    "changed",
    [
        {"wishes": {"preset": "tiny-cpu"}},
        {"wishes": {"preset": "tiny-cpu", "prompt": 3}},
        {"wishes": {"preset": "tiny-cpu", "prompt": "a", "path": "/etc/passwd"}},
        {"next_chunk": -1},
        {"next_chunk": True},
        {"next_chunk": 0},
        {"pts_s": float("nan")},
        {"seed": 2**63},
    ],
)
def test_facts_that_cannot_be_are_refused(changed: dict[str, object]):
    facts = {
        "wishes": {"preset": "tiny-cpu", "prompt": "a star"},
        "family": "tiny", "next_chunk": 1, "pts_s": 0.0, "seed": 0,
    }  # fmt: skip
    metadata = {"format": FORMAT, "session": json.dumps(facts | changed)}
    with pytest.raises(ConfigError, match="not a snapshot"):
        unpack_snapshot(save({"latents": torch.zeros(1, 1, 1, 1)}, metadata))


def test_latents_that_are_not_finite_are_refused():
    place = replace(SNAPSHOT.place, latents_FCHW=torch.full((1, 1, 1, 1), torch.nan))
    with pytest.raises(ConfigError, match="not a snapshot"):
        carried(replace(SNAPSHOT, place=place))
