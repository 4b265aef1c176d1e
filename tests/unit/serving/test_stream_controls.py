"""What a stream can be told while it runs: prompts by the clock, strength, a new beginning."""

from __future__ import annotations

import numpy as np
import pytest

from streamgen import Host, Stream
from streamgen.clock import SimulatedClock
from streamgen.errors import ConfigError
from streamgen.media.pixels import mirror
from streamgen.media.sources.synthetic import SyntheticSource
from streamgen.serving.timeline import PromptTimeline, TimedPrompt
from streamgen.types import PictureSize, Pixels

SIZE = PictureSize(64, 64)
SMALL = (f"picture.height={SIZE.height}", f"picture.width={SIZE.width}", "model.num_threads=1")
CLIP = 4  # frames of a chunk, a quarter of a second
BALL, STAR = "a red ball over a green field", "a blue star over the sea at night"


def source(num_frames: int | None = None) -> SyntheticSource:
    return SyntheticSource(SIZE, fps=16, clock=SimulatedClock(), num_frames=num_frames)


def pictures(stream: Stream, count: int) -> list[Pixels]:
    return [next(stream).pixels for _ in range(count)]


def drawn(host: Host, num_frames: int, timeline: PromptTimeline | None = None) -> list[Pixels]:
    with Stream(host, prompt=BALL, max_frames=num_frames, timeline=timeline) as stream:
        return [frame.pixels for frame in stream]


@pytest.mark.parametrize(
    ("time_s", "first_changed"), [(0.5, 2 * CLIP), (0.51, 3 * CLIP), (0.0, 0), (9.0, 5 * CLIP)]
)
def test_a_timed_prompt_counts_from_the_first_chunk_that_begins_then(
    host: Host, time_s: float, first_changed: int
):
    """To the frame, however far the engine runs ahead of whoever looks."""
    plain = drawn(host, 5 * CLIP)
    story = drawn(host, 5 * CLIP, PromptTimeline([TimedPrompt(time_s, STAR)]))
    is_same = [np.array_equal(one, two) for one, two in zip(plain, story, strict=True)]
    assert is_same == [index < first_changed for index in range(5 * CLIP)]


def test_a_timed_prompt_that_cannot_be_followed_is_told_before_the_first_frame(host: Host):
    timeline = PromptTimeline([TimedPrompt(1.0, STAR), TimedPrompt(60.0, "xyzzy plugh")])
    with pytest.raises(ConfigError, match="knows no word of the prompt 'xyzzy plugh'"):
        Stream(host, prompt=BALL, timeline=timeline)
    assert len(drawn(host, 4)) == 4  # its place was given back


def test_strength_changes_while_a_video_runs(video_host: Host):
    """From the next chunks on: what was drawn before is the same, what comes after is not."""

    def run(strength: float | None) -> list[Pixels]:
        with Stream(video_host, prompt="a sketch", source=source(), strength=0.0) as stream:
            frames = pictures(stream, CLIP)
            if strength is not None:
                stream.strength = strength
                assert stream.strength == strength
            return frames + pictures(stream, 15 * CLIP)

    plain, changed = run(None), run(1.0)
    is_same = [np.array_equal(one, two) for one, two in zip(plain, changed, strict=True)]
    assert all(is_same[:CLIP])
    assert not any(is_same[-CLIP:])


def test_an_impossible_strength_changes_nothing(video_host: Host, host: Host):
    with Stream(video_host, prompt="a sketch", source=source(), strength=0.25) as stream:
        with pytest.raises(ConfigError, match="is not in 0 to 1"):
            stream.strength = 7.0
        assert stream.strength == 0.25
        assert len(pictures(stream, 4)) == 4
    with (
        Stream(host, prompt=BALL) as stream,
        pytest.raises(ConfigError, match="strength needs an input"),
    ):
        stream.strength = 0.5


def test_a_video_begins_anew_where_its_input_is(video_host: Host):
    """The input is not played back: what it has left comes out, and nothing of the old clips."""
    with Stream(video_host, prompt="a sketch", source=source(40 * CLIP)) as stream:
        pictures(stream, CLIP)
        stream.reset(seed=9)
        rest = list(stream)
    assert 0 < len(rest) < 40 * CLIP
    assert len(rest) % CLIP == 0
    assert rest[0].pts_s == 0
    with Stream(video_host, prompt="a sketch", source=source(4)) as stream:
        with pytest.raises(ConfigError, match="seed -1"):
            stream.reset(seed=-1)
        assert len(list(stream)) == 4


def test_a_mirrored_input_is_drawn_mirrored():
    with Host("identity-cpu", overrides=SMALL[:2]) as host:
        plain = Stream(host, prompt="-", source=source(4))
        swapped = Stream(host, prompt="-", source=source(4), mirrored=True)
        for one, two in zip(plain, swapped, strict=True):
            np.testing.assert_array_equal(mirror(one.pixels), two.pixels)
