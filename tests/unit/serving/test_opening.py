"""Streams that begin with a picture or go on from a saved one, as a user asks for them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from streamgen import Host, Stream
from streamgen.errors import CheckpointError, ConfigError, SinkError, SourceError
from streamgen.media.sources.synthetic import SyntheticSource
from streamgen.types import PictureSize, Pixels

SIZE = PictureSize(64, 64)
SMALL = (f"picture.height={SIZE.height}", f"picture.width={SIZE.width}", "model.num_threads=1")
BALL, STAR = "a red ball over a green field", "a blue star over the sea at night"
CLIP = 4  # frames of a chunk of this model


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A scene that the model can draw: half sky, half grass, a disc."""
    pixels = np.full((90, 120, 3), (235, 206, 135), np.uint8)
    pixels[50:] = (40, 160, 60)
    cv2.circle(pixels, (60, 40), 20, (30, 30, 220), -1)
    path = tmp_path / "first.png"
    cv2.imwrite(str(path), pixels)
    return path


def frames_of(stream: Stream, count: int) -> list[Pixels]:
    return [frame.pixels for frame in islice(stream, count)]


def difference(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(np.float64) - b).mean())


def test_a_stream_begins_with_the_picture_it_is_given(host: Host, picture: Path) -> None:
    """The first chunk shows the picture, whatever the seed, nearer to it than an own start is."""
    stored = cv2.imread(str(picture))
    assert stored is not None
    shown = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
    shown = cv2.resize(shown[:, 15:105], (64, 64), interpolation=cv2.INTER_AREA)
    shown = np.asarray(shown, np.uint8)
    with Stream(host, prompt=BALL, first=picture) as stream, Stream(host, prompt=STAR) as other:
        first, own = frames_of(stream, CLIP), frames_of(other, CLIP)
    assert difference(first[0], shown) < 12 < difference(own[0], shown)


def test_a_short_clip_is_shown_whole_and_then_goes_on(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    source = SyntheticSource(SIZE, fps=16, clock=host.pipeline.clock, num_frames=10)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 16, (64, 64))
    taken: list[Pixels] = []
    while (frame := source.read()) is not None:
        taken.append(frame.pixels)
        writer.write(frame.pixels[..., ::-1])
    writer.release()
    with Stream(host, prompt=BALL, first=path, max_frames=20) as stream:
        frames = frames_of(stream, 30)
        assert len(frames) == 20
    assert [difference(a, b) < 20 for a, b in zip(frames[:10], taken, strict=True)] == [True] * 10


def test_a_saved_stream_goes_on_where_it_was(host: Host, tmp_path: Path) -> None:
    """The next picture is nearer to the last one than a fresh start is, and time begins at 0."""
    path = tmp_path / "state.safetensors"
    with Stream(host, prompt=BALL, seed=5) as stream:
        last = frames_of(stream, 40)[-1]
        stream.save(path)
    with Stream(host, prompt=BALL, seed=6, resume=path) as again, Stream(host, prompt=STAR) as new:
        frame = next(again)
        assert frame.pts_s == 0
        assert difference(frame.pixels, last) < difference(next(new).pixels, last) / 2


def test_a_stream_can_be_saved_after_its_end(host: Host, tmp_path: Path) -> None:
    with Stream(host, prompt=BALL, max_frames=4) as stream:
        assert len(frames_of(stream, 9)) == 4
        stream.save(tmp_path / "state.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("content", [b"", b"not a stream", None])
def test_what_is_no_saved_stream_is_refused_by_name(
    host: Host, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "state.safetensors"
    if content is None:
        save_file({"latents": torch.zeros(1, 2)}, path)
    else:
        path.write_bytes(content)
    for wrong in (path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=wrong.name):
            Stream(host, prompt=BALL, resume=wrong)


def test_a_stream_of_another_size_is_refused(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with Stream(host, prompt=BALL) as stream:
        next(stream)
        stream.save(path)
    larger = ("picture.height=96", "picture.width=96", "model.num_threads=1")
    with Host("tiny-cpu", overrides=larger) as other, pytest.raises(ConfigError, match="64x6x6"):
        Stream(other, prompt=BALL, resume=path)


def test_nothing_is_saved_before_there_is_a_picture_or_where_nothing_can_be(
    host: Host, tmp_path: Path
) -> None:
    with Stream(host, prompt=BALL) as stream:
        with pytest.raises(SinkError, match="no picture yet"):
            stream.save(tmp_path / "state.safetensors")
        next(stream)
        with pytest.raises(SinkError, match="cannot be written"):
            stream.save(tmp_path / "no folder" / "state.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_begin_a_stream_is_refused(host: Host, tmp_path: Path, picture: Path) -> None:
    with pytest.raises(SourceError):
        Stream(host, prompt=BALL, first=tmp_path / "missing.png")
    with pytest.raises(ConfigError, match="begins with a picture or goes on"):
        Stream(host, prompt=BALL, first=picture, resume=picture)
    with pytest.raises(ConfigError, match="cut it"):
        Stream(host, prompt=BALL, first="synthetic:500")
    source = SyntheticSource(SIZE, fps=16, clock=host.pipeline.clock, num_frames=4)
    with Host("tiny-cpu-v2v", overrides=SMALL) as video, pytest.raises(ConfigError, match="input"):
        Stream(video, prompt="a pencil sketch", source=source, first=picture)
