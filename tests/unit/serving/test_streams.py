"""Streams and hosts, as a Python program uses them, with the model of the package."""

from __future__ import annotations

import numpy as np
import pytest

from streamgen import Host, Stream
from streamgen.clock import MonotonicClock
from streamgen.engine.collaborators import PendingClip
from streamgen.errors import CapacityError, ConfigError, SourceError
from streamgen.media.sources.synthetic import SyntheticSource
from streamgen.types import Frame, PictureSize, Pixels

SIZE = PictureSize(64, 64)
SMALL = (f"picture.height={SIZE.height}", f"picture.width={SIZE.width}", "model.num_threads=1")
CLIP = 4  # frames of a chunk of this model
BALL, STAR = "a red ball over a green field", "a blue star over the sea at night"
GREY_LEVELS = 2  # other batch shapes, other rounding, at most so many levels of a pixel


class WatchedSource(SyntheticSource):
    """Counts how often it is closed, and can break after some frames."""

    def __init__(self, num_frames: int | None = None, *, breaks_at: int | None = None) -> None:
        super().__init__(SIZE, fps=16, clock=MonotonicClock(), num_frames=num_frames)
        self.num_closed = 0
        self._breaks_at = breaks_at
        self._num_read = 0

    def read(self) -> Frame | None:
        if self._num_read == self._breaks_at:
            raise SourceError("the cable was pulled; plug it in")
        self._num_read += 1
        return super().read()

    def close(self) -> None:
        self.num_closed += 1


def pictures(stream: Stream, count: int) -> list[Pixels]:
    return [next(stream).pixels for _ in range(count)]


def assert_alike(some: list[Pixels], others: list[Pixels]) -> None:
    assert len(some) == len(others)
    difference = np.abs(np.stack(some).astype(int) - np.stack(others).astype(int))
    assert difference.max() <= GREY_LEVELS


@pytest.mark.parametrize("max_frames", [1, 4, 5, 10])
def test_a_stream_gives_exactly_as_many_frames_as_asked(host: Host, max_frames: int):
    with Stream(host, prompt=BALL, max_frames=max_frames) as stream:
        frames = list(stream)
        assert list(stream) == []
    assert len(frames) == stream.num_frames == max_frames
    assert [frame.pts_s for frame in frames] == [index / host.fps for index in range(max_frames)]
    assert {frame.pixels.shape for frame in frames} == {(SIZE.height, SIZE.width, 3)}
    assert {frame.pixels.dtype for frame in frames} == {np.dtype(np.uint8)}


@pytest.mark.parametrize("max_frames", [0, -1])
def test_no_frames_are_no_video(host: Host, max_frames: int):
    with pytest.raises(ConfigError, match="are no video"):
        Stream(host, prompt=BALL, max_frames=max_frames)


def test_the_same_seed_gives_the_same_frames_and_another_one_others(host: Host):
    seen: list[list[Pixels]] = []
    for seed in (7, 7, 8):
        with Stream(host, prompt=BALL, seed=seed) as stream:
            seen.append(pictures(stream, 2 * CLIP))
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_another_prompt_counts_from_the_next_chunk_on(host: Host):
    with Stream(host, prompt=BALL) as stream:
        unchanged = pictures(stream, 6 * CLIP)
    with Stream(host, prompt=BALL) as stream:
        before = pictures(stream, 2 * CLIP)
        stream.prompt = STAR
        after = pictures(stream, 4 * CLIP)
        assert stream.prompt == STAR
    assert np.array_equal(before, unchanged[: 2 * CLIP])
    assert not np.array_equal(after[-1], unchanged[-1])


def test_an_impossible_prompt_leaves_the_stream_as_it_was(host: Host):
    with Stream(host, prompt=BALL, max_frames=3 * CLIP) as stream:
        pictures(stream, CLIP)
        for prompt in ("", " \n", "x" * 3000, "xyzzy", "1234 !?"):
            with pytest.raises(ConfigError):
                stream.prompt = prompt
        assert stream.prompt == BALL
        assert len(list(stream)) == 2 * CLIP


def test_a_prompt_of_unknown_words_says_what_the_model_knows(host: Host):
    with pytest.raises(ConfigError, match="knows no word of the prompt 'xyzzy plugh'; it draws"):
        Stream(host, prompt="xyzzy plugh")
    with Stream(host, prompt="a red xyzzy", max_frames=1) as stream:
        assert stream.unknown_words == ("xyzzy",)
        assert stream.knowledge.startswith("draws")
        assert len(list(stream)) == 1


def test_many_prompts_may_follow_one_another(host: Host):
    colours = ("red", "orange", "yellow", "green", "blue", "purple")
    shapes = ("ball", "box", "star", "triangle")
    prompts = [f"a {colour} {shape}" for colour in colours for shape in shapes]
    with Stream(host, prompt=prompts[0]) as stream:
        for prompt in (*prompts, prompts[0]):
            stream.prompt = prompt
        assert len(pictures(stream, 2 * CLIP)) == 2 * CLIP


def test_two_streams_of_a_host_look_as_each_does_alone(host: Host):
    """Rows of one batch do not see each other; what differs is the rounding of the batch."""
    alone: list[list[Pixels]] = []
    for prompt, seed in ((BALL, 1), (STAR, 2)):
        with Stream(host, prompt=prompt, seed=seed) as stream:
            alone.append(pictures(stream, 3 * CLIP))
    first = Stream(host, prompt=BALL, seed=1)
    second = Stream(host, prompt=STAR, seed=2)
    with first, second:
        taken = [(next(first).pixels, next(second).pixels) for _ in range(3 * CLIP)]
    assert_alike([one for one, _ in taken], alone[0])
    assert_alike([other for _, other in taken], alone[1])


def test_a_stream_goes_on_undisturbed_when_its_neighbour_closes(host: Host):
    with Stream(host, prompt=BALL, seed=1) as stream:
        alone = pictures(stream, 4 * CLIP)
    with Stream(host, prompt=BALL, seed=1) as stream:
        with Stream(host, prompt=STAR) as neighbour:
            beside = pictures(stream, CLIP)
            next(neighbour)
        beside += pictures(stream, 3 * CLIP)
    assert_alike(beside, alone)


class BrokenDecoder:
    def decode(self, latents_FCHW: object, **facts: object) -> PendingClip:
        raise RuntimeError("the codec broke")


def test_a_stream_whose_codec_breaks_tells_its_reader_and_nobody_else(host: Host):
    broken, healthy = Stream(host, prompt=BALL), Stream(host, prompt=STAR)
    with broken, healthy:
        before = pictures(broken, CLIP)
        broken._opened.session.decoder = BrokenDecoder()
        assert len(pictures(healthy, 3 * CLIP)) == 3 * CLIP
        with pytest.raises(RuntimeError, match="the codec broke"):
            before.extend(frame.pixels for frame in broken)
        assert list(broken) == []
        assert len(pictures(healthy, 2 * CLIP)) == 2 * CLIP


def test_a_full_host_refuses_and_stays_usable():
    with Host("tiny-cpu", overrides=(*SMALL, "engine.sessions=1")) as host:
        with Stream(host, prompt=BALL, max_frames=2 * CLIP) as stream:
            next(stream)
            with pytest.raises(CapacityError):
                Stream(host, prompt=STAR)
            assert len(list(stream)) == 2 * CLIP - 1
            with Stream(host, prompt=STAR, max_frames=1) as after_its_end:
                assert len(list(after_its_end)) == 1
        with Stream(host, prompt=STAR, max_frames=1) as stream:
            assert len(list(stream)) == 1


def test_a_closed_stream_ends_and_closing_twice_does_no_harm(host: Host):
    stream = Stream(host, prompt=BALL)
    next(stream)
    stream.close()
    stream.close()
    assert list(stream) == []
    with pytest.raises(ValueError, match="closed"):
        stream.prompt = STAR
    with pytest.raises(ValueError, match="closed"):
        stream.reset()


def test_a_closed_host_ends_its_streams(host: Host):
    with Stream(host, prompt=BALL) as stream:
        pictures(stream, CLIP)
        host.close()
        assert list(stream) == []
        stream.prompt = STAR


def test_a_reset_begins_anew_under_the_current_prompt(host: Host):
    with Stream(host, prompt=STAR, seed=3, max_frames=CLIP) as stream:
        expected = [frame.pixels for frame in stream]
    with Stream(host, prompt=BALL, seed=3, max_frames=CLIP) as stream:
        pictures(stream, 2)
        stream.prompt = STAR
        with pytest.raises(ConfigError, match="seed"):
            stream.reset(seed=-1)
        stream.reset()
        assert stream.num_frames == 0
        assert np.array_equal([frame.pixels for frame in stream], expected)
        stream.reset(seed=4)
        assert not np.array_equal([frame.pixels for frame in stream], expected)


@pytest.mark.parametrize("num_frames", [1, 4, 11])
def test_a_video_comes_out_as_long_as_it_went_in(video_host: Host, num_frames: int):
    source = WatchedSource(num_frames)
    with Stream(video_host, prompt="a pencil sketch", source=source) as stream:
        frames = list(stream)
    assert len(frames) == num_frames
    assert [frame.pts_s for frame in frames] == [index / 16 for index in range(num_frames)]
    assert source.num_closed == 1


def test_max_frames_ends_an_endless_video(video_host: Host):
    source = WatchedSource()
    with Stream(video_host, prompt="a pencil sketch", source=source, max_frames=6) as stream:
        assert len(list(stream)) == 6
    assert source.num_closed == 1


def test_frames_that_nobody_asked_for_need_not_exist(video_host: Host):
    """A source that breaks after the last frame wanted does not spoil the video."""
    source = WatchedSource(breaks_at=4)
    with Stream(video_host, prompt="a pencil sketch", source=source, max_frames=4) as stream:
        assert len(list(stream)) == 4


def test_an_error_of_the_source_reaches_the_caller_after_the_frames_before_it(video_host: Host):
    source = WatchedSource(breaks_at=6)
    seen: list[Frame] = []
    with Stream(video_host, prompt="a pencil sketch", source=source) as stream:
        with pytest.raises(SourceError, match="the cable was pulled"):
            seen.extend(stream)  # what came before the error is kept by extend
        assert list(stream) == []
    assert len(seen) == 6
    assert source.num_closed == 1


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan"), float("inf")])
def test_strength_is_from_0_to_1(video_host: Host, strength: float):
    source = WatchedSource(4)
    with pytest.raises(ConfigError, match="is not in 0 to 1"):
        Stream(video_host, prompt="a sketch", source=source, strength=strength)
    assert source.num_closed == 1


def test_a_preset_and_its_input_must_fit_together(host: Host, video_host: Host):
    source = WatchedSource(4)
    with pytest.raises(ConfigError, match="takes no input"):
        Stream(host, prompt=BALL, source=source)
    assert source.num_closed == 1
    with pytest.raises(ConfigError, match="has no input"):
        Stream(video_host, prompt=BALL)
    with pytest.raises(ConfigError, match="strength needs an input"):
        Stream(host, prompt=BALL, strength=0.5)
    source = WatchedSource(4)
    with pytest.raises(ConfigError, match="no preset"):
        Stream("tiny-gpu-4", prompt=BALL, source=source)
    assert source.num_closed == 1


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_a_seed_is_a_number_that_noise_can_be_made_from(host: Host, seed: int):
    with pytest.raises(ConfigError, match=f"seed {seed} is not in"):
        Stream(host, prompt=BALL, seed=seed)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("picture.width=100",), "100x128 pixels does not divide.*; take 96x128 or 112x128"),
        (("picture.width=80", "picture.height=48"), "80x48 pixels does not.*; take 96x64"),
        (("noise_control.start_sigma=0.5",), "raise strength or noise_control.start_sigma"),
        (
            ("noise_control.kind=motion", "noise_control.start_sigma=0.1", "denoise.timesteps=[9]"),
            "motion takes 0.1 of noise away",
        ),
    ],
)
def test_settings_that_the_model_cannot_follow_are_refused(overrides: tuple[str, ...], words: str):
    source = WatchedSource(4)
    with pytest.raises(ConfigError, match=words):
        Stream("tiny-cpu-v2v", prompt="a sketch", source=source, overrides=overrides)
    assert source.num_closed == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ("cache.sinks=0",),
        ("cache.sinks=0", "cache.ring=1"),
        ("cache.positions=absolute",),
        ("cache.mode=per_step", "cache.first_chunk=alone"),
        ("engine.policy=sequential", "engine.output_queue_clips=1"),
        ("denoise.chunk_frames=3", "cache.sinks=3", "cache.ring=6"),
        ("denoise.guidance=full", "denoise.guidance_scale=2"),
        ("denoise.timesteps=[1000]", "denoise.shift=1", "picture.fps=23.976"),
    ],
)
def test_every_way_to_run_the_model_gives_frames(overrides: tuple[str, ...]):
    with Stream("tiny-cpu", prompt=BALL, max_frames=14, overrides=(*SMALL, *overrides)) as stream:
        assert len(list(stream)) == 14


def test_overrides_belong_to_the_host(host: Host):
    with pytest.raises(ValueError, match="belong to the Host"):
        Stream(host, prompt=BALL, overrides=SMALL)
