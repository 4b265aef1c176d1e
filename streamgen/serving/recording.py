"""A session written down so that it can be played again to the same frames: a file of JSON lines.

    {"format": "streamgen-session-1", "settings": {...}, "weights": "...", "torch": "2.13.0", ...}
    {"open": {"prompt": "...", "seed": 0, ...}}       a session begins; after a reset, another one
    {"clip": {"pixels": "...", "pts_s": 0.0, ...}}    a clip of the input, as it was drawn
    {"run": [[0, 0], [1, 0]]}                         passes (chunk, step) that rode in one batch
    {"prompt": "...", "over_chunks": 4}  {"strength": 0.5}  {"loras": {...}}  {"rung": 1}
    {"held": [4, 0.25, 0.25]}                         a still clip that was not drawn
    {"shown": [4, "9f3a..."]}                         pictures that came out, and their digest

What was decided by a clock - who rode with whom, what was dropped, which quality - is written down
as it was decided, so that nothing is decided again. Pixels are compressed without loss. Lines are
written by a thread of their own as things happen, to a file beside the named one, whose place it
takes at the end: an older recording stays until then, a crash leaves `a.partial.session`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import queue
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from torch import nn

from streamgen.engine.collaborators import HeldClip
from streamgen.engine.feed import TakenClip
from streamgen.engine.recovery import own_starter
from streamgen.engine.session import Session
from streamgen.engine.start import Opening, VideoStarter
from streamgen.errors import SinkError
from streamgen.media.partial_file import created_beside
from streamgen.scheduling.plan import Pass
from streamgen.serving.build import Pipeline, settings_of
from streamgen.types import Clip

if TYPE_CHECKING:
    import numpy.typing as npt

logger = logging.getLogger(__name__)

FORMAT = "streamgen-session-1"
MAX_WAITING_LINES = 256  # of what is still to be written; then the stream waits for the disk
SAMPLE = 64  # numbers of each parameter that tell weights apart
COMPRESSION = 1  # of zlib: the fastest


class SessionRecorder:
    """Writes one stream down; made before its session, told of everything, closed at its end.

    A watcher of the session (`SessionWatcher`). If the file cannot be written any more, the stream
    goes on and `close` raises.
    """

    def __init__(self, path: Path, pipeline: Pipeline) -> None:
        """Raises SinkError if the file cannot be made."""
        self._path = path
        self._pipeline = pipeline
        self._lines: queue.Queue[object | None] = queue.Queue(MAX_WAITING_LINES)
        self._running: dict[str, object] | None = None  # passes whose clips are still to come
        self._failure: OSError | None = None
        self._is_closed = self._has_opened = False
        self._place = Path(os.path.realpath(path))
        if self._place.exists() and not self._place.is_file():
            raise SinkError(f"{path}: is not a file; choose another place for the recording")
        try:
            self._partial, self._file = created_beside(self._place)
        except OSError as error:
            raise SinkError(
                f"{path}: cannot be written ({error.strerror}); choose another place"
            ) from error
        self._writer = threading.Thread(target=self._write_all, name="recorder", daemon=True)
        self._writer.start()
        self._put(_head(pipeline))

    # What is asked of the stream

    def opened(
        self,
        session: Session,
        *,
        prompt: str,
        strength: float | None,
        opening: Opening | None,
        loras: Mapping[str, float],
    ) -> None:
        """A session has begun, and nothing of it has run yet."""
        self._has_opened = True
        self._put(
            {
                "open": {
                    "prompt": prompt,
                    "seed": session.seed,
                    "strength": strength,
                    "rung": session.rung,
                    "ladder": [asdict(quality) for quality in session.terms.ladder],
                    "frame_s": session.terms.frame_s,
                    "max_waiting_clips": session.max_waiting_clips,
                    "opening": None if opening is None else _opening(opening),
                    "loras": dict(loras),
                }
            }
        )
        session.watcher = self
        starter = own_starter(session)
        if isinstance(starter, VideoStarter):
            starter.watch = self._took

    def prompt(self, prompt: str, *, over_chunks: int) -> None:
        self._put({"prompt": prompt, "over_chunks": over_chunks})

    def strength(self, strength: float) -> None:
        self._put({"strength": strength})

    def loras(self, scales: Mapping[str, float]) -> None:
        self._put({"loras": dict(scales)})

    def shown(self, clip: Clip) -> None:
        """A finished clip has been handed out."""
        self._put({"shown": [clip.num_frames, digest(clip.pixels)]})

    def ended(self, num_frames: int) -> None:
        """So many frames were handed out of this session; no more will be."""
        self._put({"end": num_frames})

    # SessionWatcher

    def ran(self, passes: tuple[Pass, ...], *, is_alone: bool) -> None:
        self._flush()
        self._running = {"run": [[where.chunk, where.step] for where in passes]}
        if not is_alone:
            self._running["alone"] = False

    def held(self, clip: HeldClip) -> None:
        self._put({"held": [clip.num_frames, clip.pts_s, clip.captured_s]})

    def changed_rung(self, rung: int) -> None:
        self._put({"rung": rung})

    def recovered(self) -> None:
        self._put({"recovered": True})

    def _took(self, taken: TakenClip) -> None:
        clip = {
            "pixels": Packed(taken.clip.pixels),
            "shape": list(taken.clip.pixels.shape),
            "num_frames": taken.num_frames,
            "pts_s": taken.pts_s,
            "captured_s": taken.captured_s,
        }
        self._enqueue({"clip": clip})  # before the passes that it came for

    def close(self) -> None:
        """Write what waits, and take the named place; twice does no harm.

        Raises SinkError if not all could be written; what was is in the file beside it then.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._flush()
        self._lines.put(None)
        self._writer.join()
        if not self._has_opened:
            self._partial.unlink(missing_ok=True)
            return
        if self._failure is None:
            try:
                os.replace(self._partial, self._place)
            except OSError as error:
                self._failure = error
        if self._failure is not None:
            raise SinkError(
                f"{self._path}: recording stopped ({self._failure.strerror}); what there is of it "
                f"is in {self._partial.name}; make room for it"
            ) from self._failure

    def _flush(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            self._enqueue(running)

    def _put(self, line: object) -> None:
        self._flush()
        self._enqueue(line)

    def _enqueue(self, line: object) -> None:
        if self._failure is None:
            self._lines.put(line)

    def _write_all(self) -> None:
        with self._file:
            while (line := self._lines.get()) is not None:
                if self._failure is not None:
                    continue
                try:
                    _write_whole(self._file, (json.dumps(line, default=_pack) + "\n").encode())
                except OSError as error:
                    logger.warning("%s: recording stops: %s", self._path, error.strerror)
                    self._failure = error


def _write_whole(file: BinaryIO, data: bytes) -> None:
    """Unbuffered files may take less than they are given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


class Packed:
    """Numbers that are compressed when they are written."""

    def __init__(self, values: npt.NDArray[np.generic]) -> None:
        self._values = np.ascontiguousarray(values)

    def __str__(self) -> str:
        return base64.b64encode(zlib.compress(self._values.tobytes(), COMPRESSION)).decode("ascii")


def digest(pixels: npt.NDArray[np.uint8]) -> str:
    """What tells pictures from any other ones."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=8).hexdigest()


def weights_digest(pipeline: Pipeline) -> str | None:
    """What tells a model's weights from others; None where ranks have them."""
    dit = pipeline.bundle.dit
    if not isinstance(dit, nn.Module):
        return None
    seen = hashlib.blake2b(digest_size=8)
    module: nn.Module = dit
    for name, values in sorted(module.state_dict().items()):
        sample = values.flatten()[:SAMPLE].float().cpu()
        seen.update(name.encode() + sample.numpy().tobytes())
    return seen.hexdigest()


def environment(pipeline: Pipeline) -> dict[str, str]:
    """What the last bits of pictures depend on beside settings and weights."""
    return {
        "torch": torch.__version__,
        "device": pipeline.backend.device_name(),
        "threads": str(torch.get_num_threads()),
    }


def _head(pipeline: Pipeline) -> dict[str, object]:
    return {
        "format": FORMAT,
        "settings": settings_of(pipeline.config),
        "weights": weights_digest(pipeline),
        "environment": environment(pipeline),
    }


def _opening(opening: Opening) -> dict[str, object]:
    latents_FCHW = opening.latents_FCHW.float().cpu()
    return {
        "latents": Packed(latents_FCHW.numpy()),
        "shape": list(latents_FCHW.shape),
        "is_shown": opening.is_shown,
    }


def _pack(value: object) -> str:
    assert isinstance(value, Packed), f"{value!r} cannot be written down"
    return str(value)


def unpacked(text: str, shape: Sequence[int], kind: type[np.generic]) -> npt.NDArray[np.generic]:
    """What `Packed` wrote. Raises ValueError or zlib.error for anything else."""
    data = zlib.decompress(base64.b64decode(text, validate=True))
    return np.frombuffer(data, kind).reshape(tuple(shape)).copy()
