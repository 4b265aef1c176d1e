"""Play a recorded session again: the same settings, the same decisions, the same frames.

Nothing is decided here: which chunks rode together, what was drawn of the input and at which
quality stands in the recording (`recording.py` says how), and the engine is led along it.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamgen.clock import Clock
from streamgen.engine.collaborators import ChunkStarter, HeldClip
from streamgen.engine.feed import RecordedFeed, TakenClip
from streamgen.engine.start import Opening
from streamgen.engine.terms import ServiceTerms
from streamgen.errors import CheckpointError, ConfigError
from streamgen.scheduling.latency import LatencyModel
from streamgen.scheduling.plan import Pass, Plan, View
from streamgen.scheduling.service import CodecKind, Quality
from streamgen.serving.build import load_config
from streamgen.serving.host import Host, OpenSession
from streamgen.serving.recording import FORMAT, digest, environment, unpacked, weights_digest
from streamgen.serving.starters import noise_starter, video_starter
from streamgen.types import Clip, Frame, PictureSize

MAX_WAITING_TICKS = 1000  # for passes that never come
Event = dict[str, Any]


class RecordedPolicy:
    """Runs the passes that it is told, as soon as they may run, and nothing else."""

    def __init__(self) -> None:
        self._wanted: tuple[Pass, ...] = ()

    def want(self, passes: tuple[Pass, ...]) -> None:
        self._wanted = passes

    @property
    def is_done(self) -> bool:
        return not self._wanted

    def plan(self, view: View, latency: LatencyModel) -> Plan:
        may_run = {one.where for session in view.sessions for one in session.candidates}
        if not may_run.issuperset(self._wanted):
            return Plan(())
        passes, self._wanted = self._wanted, ()
        return Plan(passes)


@dataclass(frozen=True, slots=True)
class Likeness:
    """How a replay compares with what was recorded."""

    num_clips: int
    """Clips compared."""
    first_different: int | None
    """The first frame of the first clip that differs; None if there is none."""
    reasons: tuple[str, ...]
    """What is other than it was, so that the last bits may differ."""

    @property
    def is_exact(self) -> bool:
        return self.first_different is None and self.num_clips > 0


class Replay:
    """The frames of a recorded session, as `Stream` gives them; a context manager."""

    def __init__(
        self, path: str | Path, *, overrides: Sequence[str] = (), clock: Clock | None = None
    ) -> None:
        """`overrides` change settings of the recording, as where its weights lie.

        Raises CheckpointError if the file is no recording, ConfigError if its weights are not the
        recording's, and what `Host` raises.
        """
        self._path = Path(path)
        self._events = _read(self._path)
        head = _head(self._events, self._path)
        self._policy = RecordedPolicy()
        self._host = Host(_settings(head), overrides=overrides, clock=clock, policy=self._policy)
        self._reasons = self._differences(head)
        self._opened: OpenSession | None = None
        self._feed = RecordedFeed()
        self._digests: deque[str] = deque()
        self._shown: deque[tuple[Clip, str]] = deque()
        self._num_clips = 0
        self._first_different: int | None = None
        self._num_compared = 0
        self._clips = self._play()
        self._num_frames = 0

    @property
    def num_frames(self) -> int:
        """Frames handed out so far."""
        return self._num_frames

    @property
    def picture_size(self) -> PictureSize:
        return self._host.picture_size

    @property
    def fps(self) -> float:
        return self._host.fps

    @property
    def host(self) -> Host:
        return self._host

    @property
    def likeness(self) -> Likeness:
        """So far."""
        return Likeness(self._num_clips, self._first_different, tuple(self._reasons))

    def next_clip(self) -> list[Frame]:
        """The frames of the next clip; none at the end. Raises CheckpointError for nonsense."""
        clip = next((clip for clip in self._clips if clip), [])
        self._num_frames += len(clip)
        return clip

    def __iter__(self) -> Iterator[Frame]:
        while clip := self.next_clip():
            yield from clip

    def close(self) -> None:
        self._host.close()

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _differences(self, head: Event) -> list[str]:
        pipeline = self._host.pipeline
        weights = weights_digest(pipeline)
        if None not in (weights, head["weights"]) and weights != head["weights"]:
            self._host.close()
            raise ConfigError(
                f"{self._path} was recorded with other weights than {pipeline.config.model.weights}"
                f"; give those with --set model.weights=..."
            )
        before: Mapping[str, str] = head["environment"]
        return [
            f"{name} was {before.get(name)}, is {now}"
            for name, now in environment(pipeline).items()
            if before.get(name) != now
        ]

    def _play(self) -> Iterator[list[Frame]]:
        """Clips, one behind: of the last one of a session perhaps not all was handed out."""
        newest: list[Frame] = []
        num_given = 0
        try:
            for event in self._events:
                self._follow(event)
                if "end" in event:
                    self._finish()
                for clip in self._take():
                    num_given += len(newest)
                    yield newest
                    newest = clip
                if "end" in event:
                    yield newest[: int(event["end"]) - num_given]
                    newest, num_given = [], 0
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise CheckpointError(
                f"{self._path}: not a readable recording ({error}); record it again"
            ) from error
        self._finish()
        yield newest
        yield from self._take()

    def _follow(self, event: Event) -> None:
        if "open" in event:
            self._open(event["open"])
            return
        opened = self._opened
        if opened is None:
            raise ValueError("it begins in the midst of a session")
        match event:
            case {"run": run}:
                if event.get("alone") is False:
                    self._note("other streams rode in the same batches")
                session = opened.session.id
                self._run(tuple(Pass(session, int(chunk), int(step)) for chunk, step in run))
            case {"clip": clip}:
                self._feed.put(_clip(clip))
            case {"held": [num_frames, pts_s, captured_s]}:
                self._feed.hold(HeldClip(int(num_frames), float(pts_s), float(captured_s)))
            case {"rung": rung}:
                opened.session.wanted_rung = range(len(opened.session.rungs))[rung]
            case {"prompt": prompt, "over_chunks": over_chunks}:
                self._host.set_prompt(opened, prompt, over_chunks=over_chunks)
            case {"strength": strength}:
                self._host.set_strength(opened, strength)
            case {"loras": scales}:
                self._host.set_lora_scales(scales)
            case {"shown": [_, seen]}:
                self._digests.append(seen)
            case {"recovered": _}:
                self._note("a device was lost while it was recorded")
            case {"end": _}:
                pass
            case _:
                raise ValueError(f"it says {', '.join(event)}, which nobody knows")

    def _open(self, facts: Event) -> None:
        host, recipe = self._host, self._host.pipeline.recipe
        if self._opened is not None:
            host.close_session(self._opened)
            self._shown.clear()  # nobody saw the rest of it
        self._feed, seed = RecordedFeed(), int(facts["seed"])
        opening = None if facts["opening"] is None else _opening(facts["opening"])
        if opening is not None:
            recipe = recipe.opening_with(opening.num_frames)
        starter: ChunkStarter
        if host.takes_video:
            starter = video_starter(
                host.pipeline, recipe, self._feed, seed=seed, strength=facts["strength"]
            )
        else:
            starter = noise_starter(
                host.pipeline, recipe, seed=seed, max_frames=None, opening=opening
            )
        ladder = tuple(_quality(quality) for quality in facts["ladder"])
        host.set_lora_scales(facts["loras"])
        self._opened = host.open_with(
            facts["prompt"],
            recipe,
            make_starter=lambda: starter,
            seed=seed,
            max_waiting_clips=int(facts["max_waiting_clips"]),
            terms=ServiceTerms(ladder=ladder, rung=int(facts["rung"]), frame_s=facts["frame_s"]),
        )

    def _run(self, passes: tuple[Pass, ...]) -> None:
        self._policy.want(passes)
        self._tick_until(lambda: self._policy.is_done)

    def _finish(self) -> None:
        """Let what is under way come out."""
        if self._opened is not None:
            executor = self._host.pipeline.engine.executor
            self._tick_until(lambda: executor.in_flight == 0)
            self._host.tick()  # what is still held is shown

    def _tick_until(self, is_done: Callable[[], bool]) -> None:
        assert self._opened is not None
        for _ in range(MAX_WAITING_TICKS):
            if is_done():
                return
            self._host.tick()
            session = self._opened.session
            if session.failure is not None:
                raise session.failure
            while session.clips:
                self._compare(session.clips.popleft().wait())
        raise ValueError("it asks for a chunk that cannot run")

    def _compare(self, clip: Clip) -> None:
        self._shown.append((clip, digest(clip.pixels)))

    def _take(self) -> list[list[Frame]]:
        """Clips whose digest is known by now, compared with it."""
        assert self._opened is not None
        session = self._opened.session
        while session.clips:
            self._compare(session.clips.popleft().wait())
        clips: list[list[Frame]] = []
        while self._shown and self._digests:
            clip, seen = self._shown.popleft()
            if seen != self._digests.popleft() and self._first_different is None:
                self._first_different = self._num_compared
            self._num_clips += 1
            self._num_compared += clip.num_frames
            clips.append(
                [
                    Frame(pixels, clip.pts_s + index / self.fps, clip.captured_s)
                    for index, pixels in enumerate(clip.pixels)
                ]
            )
        return clips

    def _note(self, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.append(reason)


def recorded_picture(path: str | Path, overrides: Sequence[str] = ()) -> tuple[PictureSize, float]:
    """Size of a recording's pictures and how many a second, before any model loads; errors as of
    Replay."""
    picture = load_config(_settings(_head(_read(Path(path)), path)), overrides).picture
    return PictureSize(picture.height, picture.width), picture.fps


def _settings(head: Event) -> dict[str, Any]:
    """Those of the recording, for the one stream that is played again."""
    settings: dict[str, Any] = head["settings"]
    settings["engine"] |= {"policy": "stream_batch", "sessions": 1}
    settings.pop("service", None)
    return settings


def _head(events: Iterator[Event], path: str | Path) -> Event:
    head = next(events)
    if head.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no recorded session; give a file of --record")
    return head


def _read(path: Path) -> Iterator[Event]:
    """The lines of a recording; one that a crash cut off ends it."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                if not line.endswith("\n") and number:
                    return
                event = json.loads(line)
                if not isinstance(event, dict):
                    raise ValueError(f"line {number + 1} is no object")
                yield event
            if not file.tell():
                raise ValueError("it is empty")
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; give a file of --record") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no recorded session ({error})") from error


def _clip(facts: Event) -> TakenClip:
    pixels = unpacked(facts["pixels"], facts["shape"], np.uint8)
    captured_s = float(facts["captured_s"])
    pts_s = float(facts["pts_s"])
    clip = Clip(pixels.view(np.uint8), pts_s, captured_s)
    return TakenClip(clip, int(facts["num_frames"]), pts_s, captured_s)


def _opening(facts: Event) -> Opening:
    latents = unpacked(facts["latents"], facts["shape"], np.float32)
    return Opening(torch.from_numpy(latents), is_shown=bool(facts["is_shown"]))


def _quality(facts: Event) -> Quality:
    return replace(Quality(**facts), codec=CodecKind(facts["codec"]))
