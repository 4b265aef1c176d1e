"""A recorded stream comes out again, to the bit, whatever was asked of it while it ran."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamgen import Host, Stream
from streamgen.clock import SimulatedClock
from streamgen.errors import CheckpointError, ConfigError, SinkError
from streamgen.media.sources.synthetic import SyntheticSource
from streamgen.scheduling.service import ServiceLevel
from streamgen.serving.recording import SessionRecorder
from streamgen.serving.replay import Replay
from streamgen.types import Frame, PictureSize
from streamgen_apps.cli import main

SIZE = PictureSize(64, 64)
SMALL = (f"picture.height={SIZE.height}", f"picture.width={SIZE.width}", "model.num_threads=1")
BALL, STAR = "a red ball over a green field", "a blue star over the sea at night"
POLICY = "engine.policy=slo_aware"
WITH_LADDER = (POLICY, "service.min_steps=1", "service.min_fps=4")


def camera(num_frames: int = 40) -> SyntheticSource:
    return SyntheticSource(SIZE, fps=16, clock=SimulatedClock(), num_frames=num_frames)


def watched(stream: Stream, *, acts: dict[int, Callable[[], object]]) -> list[Frame]:
    """All frames; after so many of them something is done."""
    frames: list[Frame] = []
    with stream:
        for frame in stream:
            frames.append(frame)
            acts.get(len(frames), lambda: None)()
    return frames


def assert_again(path: Path, frames: list[Frame]) -> None:
    with Replay(path) as replay:
        again = list(replay)
        assert replay.likeness.is_exact, replay.likeness
    assert [frame.pts_s for frame in again] == [frame.pts_s for frame in frames]
    assert np.array_equal([one.pixels for one in again], [one.pixels for one in frames])


def test_words_that_change_on_the_way(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "a.session"
    stream = Stream(host, prompt=BALL, max_frames=42, seed=3, record=path)
    frames = watched(
        stream,
        acts={
            9: lambda: setattr(stream, "prompt", STAR),
            18: lambda: stream.change_prompt(f"{{{BALL}: 2 | {STAR}: 1}}", over_chunks=3),
        },
    )
    assert len(frames) == 42
    assert_again(path, frames)


def test_an_input_strength_and_a_new_beginning(video_host: Host, tmp_path: Path) -> None:
    path = tmp_path / "a.session"
    stream = Stream(video_host, prompt="a pencil sketch", source=camera(70), record=path)
    frames = watched(
        stream,
        acts={6: lambda: setattr(stream, "strength", 0.6), 14: lambda: stream.reset(seed=9)},
    )
    assert len(frames) > 20
    assert_again(path, frames)


@pytest.mark.parametrize("preset", ["tiny-cpu", "tiny-cpu-v2v"])
def test_quality_that_went_down_and_up(preset: str, tmp_path: Path) -> None:
    """What the ladder decided stands in the recording: nothing is decided again."""
    path = tmp_path / "a.session"
    with Host(preset, overrides=(*SMALL, *WITH_LADDER), clock=SimulatedClock()) as host:
        source = camera(200) if host.takes_video else None
        stream = Stream(host, prompt=BALL, source=source, max_frames=96, record=path)
        session = stream._opened.session
        seen: set[str] = set()

        def go(rung: int) -> Callable[[], None]:
            def act() -> None:
                seen.add(stream.quality)
                session.wanted_rung = rung

            return act

        frames = watched(stream, acts={10: go(len(session.rungs) - 1), 70: go(0), 96: go(0)})
    assert len(seen) > 1
    assert_again(path, frames)


def test_still_clips_that_were_held(tmp_path: Path) -> None:
    path = tmp_path / "a.session"
    service = ServiceLevel(fps=16, first_frame_s=5.0, latency_s=0.6, accepts_still=True)
    with Host("tiny-cpu-v2v", overrides=(*SMALL, POLICY), clock=SimulatedClock()) as host:
        stream = Stream(
            host, prompt=BALL, source=Still(), max_frames=40, record=path, service=service
        )
        session = stream._opened.session
        frames = watched(stream, acts={4: lambda: setattr(session, "wanted_rung", 1)})
        assert session.report.num_held > 0
    assert_again(path, frames)


class Still(SyntheticSource):
    """A camera before which nothing moves; it waits for its reader, so that nothing is lost."""

    def __init__(self) -> None:
        super().__init__(SIZE, fps=16, clock=SimulatedClock(), num_frames=80)

    def read(self) -> Frame | None:
        frame = super().read()
        return frame and Frame(np.full_like(frame.pixels, 90), frame.pts_s, frame.captured_s)


def test_a_stream_beside_others_says_so(host: Host, tmp_path: Path) -> None:
    """Batches of other shapes round otherwise, which the comparison names as a reason."""
    path = tmp_path / "a.session"
    with Stream(host, prompt=STAR, max_frames=60) as other:
        next(other)
        watched(Stream(host, prompt=BALL, max_frames=24, record=path), acts={})
    with Replay(path) as replay:
        assert len(list(replay)) == 24
        assert "other streams rode in the same batches" in replay.likeness.reasons


def test_what_a_crash_cut_off_plays_to_the_cut(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "a.session"
    frames = watched(Stream(host, prompt=BALL, max_frames=40, record=path), acts={})
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-6]) + lines[-6][:5])
    with Replay(path) as replay:
        again = list(replay)
        assert replay.likeness.is_exact
    assert 4 <= len(again) < 40
    assert np.array_equal(again[-1].pixels, frames[len(again) - 1].pixels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no recorded session"),
        ("{}\n", "no recorded session"),
        ("no json\n", "no recorded session"),
        ('{"format": "streamgen-session-1"', "no recorded session"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.session"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        Replay(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="No such file"):
        Replay(tmp_path / "none")


def test_nonsense_within_a_recording_is_no_stack_trace(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "a.session"
    watched(Stream(host, prompt=BALL, max_frames=8, record=path), acts={})
    lines = path.read_text().splitlines()
    for number, line in ((1, '{"run": [[0, 0]]}'), (2, '{"run": [[7, 1]]}'), (2, '{"what": 1}')):
        path.write_text("\n".join([*lines[:number], line, *lines[number:]]) + "\n")
        with Replay(path) as replay, pytest.raises(CheckpointError, match="not a readable"):
            list(replay)


def test_other_weights_are_refused(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "a.session"
    watched(Stream(host, prompt=BALL, max_frames=4, record=path), acts={})
    head, *rest = path.read_text().splitlines()
    changed = json.loads(head) | {"weights": "0123456789abcdef"}
    path.write_text("\n".join([json.dumps(changed), *rest]) + "\n")
    with pytest.raises(ConfigError, match="other weights"):
        Replay(path)


def test_a_recording_that_cannot_be_written_is_refused_at_once(host: Host, tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot be written"):
        Stream(host, prompt=BALL, record=tmp_path / "none" / "a.session")
    assert host.pipeline.engine.sessions == ()


def test_an_older_recording_stays_until_the_new_one_is_whole(host: Host, tmp_path: Path) -> None:
    """Nothing is lost: not while it runs, and not when nothing could begin."""
    path, partial = tmp_path / "a.session", tmp_path / "a.partial.session"
    watched(Stream(host, prompt=BALL, max_frames=8, record=path), acts={})
    old = path.read_bytes()
    with Stream(host, prompt=STAR, max_frames=16, record=path) as stream:
        assert len([next(stream) for _ in range(8)]) == 8
        assert path.read_bytes() == old
        assert partial.exists()
    assert path.read_bytes() != old
    assert not partial.exists()
    with Replay(path) as replay:
        assert len(list(replay)) == 8
    newest = path.read_bytes()
    SessionRecorder(path, host.pipeline).close()
    assert path.read_bytes() == newest
    assert os.listdir(tmp_path) == ["a.session"]


def test_the_command_records_and_compares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, film = tmp_path / "a.session", tmp_path / "again.mp4"
    trace, metrics = tmp_path / "trace.json", tmp_path / "metrics.json"
    small = [word for setting in SMALL for word in ("--set", setting)]
    watching = ["--record", str(path), "--trace", str(trace), "--metrics", str(metrics)]
    assert main(["run", BALL, "--frames", "8", "-o", "null:", *watching, *small]) == 0
    assert main(["replay", str(path), "-o", str(film)]) == 0
    assert "8 frames, 0.5 s of video, all as they were recorded" in capsys.readouterr().err
    assert film.stat().st_size > 0
    names = {event["name"] for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"decide", "denoise", "decode"} <= names
    assert json.loads(metrics.read_text())["streamgen_chunks_total"]["series"][0]["value"] >= 2
    changed = path.read_text().replace('"shown": [4, "', '"shown": [4, "x', 1)
    path.write_text(changed)
    assert main(["replay", str(path)]) == 1
    assert "from frame 0 on they are not to the bit as recorded" in capsys.readouterr().err


def test_an_output_that_cannot_be_is_told_before_a_model_loads(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.session"
    watched(Stream(host, prompt=BALL, max_frames=4, record=path), acts={})

    def loads(*arguments: object, **named: object) -> None:
        raise AssertionError("a model loads")

    monkeypatch.setattr("streamgen.serving.replay.Host", loads)
    assert main(["replay", str(path), "-o", str(tmp_path / "none" / "film.mp4")]) == 3
    assert "none" in capsys.readouterr().err
    assert main(["replay", str(path), "--zoom", "0"]) == 2
    assert "zoom" in capsys.readouterr().err
    assert main(["replay", __file__]) != 0
    assert "is no recorded session" in capsys.readouterr().err
