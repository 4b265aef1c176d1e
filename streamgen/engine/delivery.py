"""The last step of a chunk: decoded, measured against its deadline, put where its viewer takes it.

Knows no policy and no executor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from streamgen.clock import Clock
from streamgen.engine.chunk import ChunkOnLadder
from streamgen.engine.clips import Arrival, LastPicture, RepeatedPictures
from streamgen.engine.collaborators import HeldClip, PendingClip
from streamgen.engine.meters import ServiceMeters
from streamgen.engine.session import Session
from streamgen.engine.timekeeping import Timekeeper

if TYPE_CHECKING:
    from torch import Tensor


class Delivery:
    """Hands clips over to sessions, in the order of their stream."""

    def __init__(self, clock: Clock, times: Timekeeper, meters: ServiceMeters) -> None:
        self._clock = clock
        self._times = times
        self._meters = meters

    def decode(self, session: Session, chunk: ChunkOnLadder, latents_FCHW: Tensor | None) -> None:
        """Decode a finished chunk and hand it over, with the still clips that came after it."""
        began_s = self._clock.now()
        clip: PendingClip = session.decoder.decode(
            latents_FCHW,
            num_frames=chunk.num_frames,
            pts_s=chunk.pts_s,
            captured_s=chunk.captured_s,
        )
        if chunk.begins_scene:
            session.past.forget()
        if latents_FCHW is not None:
            session.past.add(latents_FCHW)
        if not chunk.num_frames:
            session.clips.append(clip)  # of what a stream goes on from, and nobody sees
            return
        if chunk.repeat > 1:
            clip = RepeatedPictures(clip, chunk.repeat)
        session.last_clip = clip
        session.arriving.append(
            Arrival(
                clip,
                chunk.captured_s,
                chunk.pts_s,
                chunk.due_s,
                num_decoded=chunk.num_frames,
                num_shown=chunk.num_frames * chunk.repeat,
                began_s=began_s,
            )
        )
        for held in chunk.held:
            self._show(session, held)
        self.hand_over(session)

    def hand_over(self, session: Session) -> None:
        """Let the owner have what has arrived. Nobody waits for what has not."""
        while session.arriving and session.arriving[0].clip.has_arrived():
            self._hand_over(session, session.arriving.popleft())

    def hand_over_next(self, sessions: Iterable[Session]) -> bool:
        """Wait for the oldest clip that is still arriving; False if there is none."""
        waiting = [session for session in sessions if session.arriving]
        if not waiting:
            return False
        session = min(waiting, key=lambda one: one.arriving[0].began_s)
        session.arriving[0].clip.wait()
        self._hand_over(session, session.arriving.popleft())
        return True

    def look_at_input(self, session: Session) -> None:
        """Before a tick: count what came too fast, hold what is still."""
        self.count_lost(session)
        self._hold_still(session)

    def count_lost(self, session: Session) -> None:
        """Count pictures of a live input that nobody will draw."""
        if session.live is not None:
            lost = session.live.take_lost()
            clip_frames = session.clip_frames * session.quality.rate_divisor
            self._meters.lost(session.report, lost, clip_frames=clip_frames)

    def _hold_still(self, session: Session) -> None:
        """Clips that look as the one before cost nothing: the last picture is shown for them."""
        room = session.max_waiting_clips - len(session.clips) - len(session.arriving)
        if room < 1 or session.next_chunk == 0 or session.live is None:
            return
        for held in session.live.take_still(room):
            session.report.num_held += 1
            self._meters.held.add()
            self._meters.encode_skipped.add(held.num_frames)
            if session.watcher is not None:
                session.watcher.held(held)
            if session.chunks:
                session.chunks[-1].held.append(held)
            else:
                self._show(session, held)
        self.hand_over(session)

    def _show(self, session: Session, held: HeldClip) -> None:
        assert session.last_clip is not None, "the first clip of a stream is always drawn"
        due_s = session.deadlines.due_s(captured_s=held.captured_s, pts_s=held.pts_s)
        clip = LastPicture(session.last_clip, held)
        now_s = self._clock.now()
        session.arriving.append(
            Arrival(
                clip,
                held.captured_s,
                held.pts_s,
                due_s,
                num_decoded=0,
                num_shown=held.num_frames,
                began_s=now_s,
            )
        )

    def _hand_over(self, session: Session, arrival: Arrival) -> None:
        now_s = self._clock.now()
        if arrival.num_decoded:
            self._times.decoded(session.id, arrival, now_s)
        pts_s, due_s = arrival.pts_s, arrival.due_s
        stall_s = session.deadlines.deliver(
            now_s, pts_s=pts_s, due_s=due_s, has_spare=bool(session.clips)
        )
        self._meters.delivered(
            session.report,
            now_s=now_s,
            opened_s=session.opened_s,
            age_s=None if session.live is None else now_s - arrival.captured_s,
            due_s=due_s,
            stall_s=stall_s,
            pts_s=pts_s,
            is_playback=session.deadlines.is_playback,
            num_frames=arrival.num_shown,
        )
        session.clips.append(arrival.clip)
