"""Metrics of what sessions get: waiting, age, deadlines, stalls, drops, and the model's error."""

from __future__ import annotations

import math

from streamgen.metrics.export import Metrics
from streamgen.metrics.stats import Counter
from streamgen.scheduling.deadlines import SessionReport


class ServiceMeters:
    """Metrics of all sessions of an engine, by what they say and not by session."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.first_frame = metrics.summary(
            "streamgen_first_frame_seconds", "From opening a session to its first pictures."
        )
        self.age = metrics.summary(
            "streamgen_frame_age_seconds",
            "From the capture of a clip's oldest picture to its hand-over.",
        )
        self.lateness = metrics.summary(
            "streamgen_lateness_seconds", "By how much chunks came after they were due; 0 in time."
        )
        self.jitter = metrics.summary(
            "streamgen_jitter_seconds",
            "How much the time between two hand-overs of a session differs from what they show.",
        )
        self.missed = metrics.counter(
            "streamgen_deadlines_missed_total", "Chunks late or stalling, and clips dropped."
        )
        self.stalls = metrics.counter("streamgen_stalls_total", "How often playback stood still.")
        self.stalled = metrics.summary("streamgen_stall_seconds", "How long playback stood still.")
        self.held = metrics.counter(
            "streamgen_clips_held_total", "Still clips that were held instead of drawn."
        )
        self.input_dropped = _drops(metrics, "input_dropped")
        self.generated_late = _drops(metrics, "generated_late")
        self.encode_skipped = _drops(metrics, "encode_skipped")
        self.sink_dropped = _drops(metrics, "sink_dropped")
        self.level = metrics.gauge(
            "streamgen_ladder_level", "Rungs that all sessions are down by agreement; 0 is best."
        )
        self.changes = metrics.counter(
            "streamgen_rung_changes_total", "Times that a session changed its quality."
        )
        self.model_error = {
            kind: metrics.summary(
                "streamgen_latency_model_error_ratio",
                "Relative error of the latency model's predictions.",
                {"work": kind},
            )
            for kind in ("encode", "denoise", "decode")
        }

    def delivered(
        self, report: SessionReport, *, now_s: float, opened_s: float, age_s: float | None,
        due_s: float, stall_s: float, pts_s: float, is_playback: bool, num_frames: int,
    ) -> None:  # fmt: skip
        """Count one chunk of so many pictures that was handed over now."""
        if report.first_frame_s is None:
            report.first_frame_s = now_s - opened_s
            self.first_frame.add(now_s - opened_s)
        report.num_chunks += 1
        if report.last is not None:
            before_s, before_pts_s = report.last
            self.jitter.add(abs((now_s - before_s) - (pts_s - before_pts_s)))
        report.last = (now_s, pts_s)
        if age_s is not None:
            self.age.add(max(0.0, age_s))
        if due_s < math.inf:
            late_s = stall_s if is_playback and report.num_chunks > 1 else max(0.0, now_s - due_s)
            self.lateness.add(late_s)
            if late_s > 0:
                report.num_late += 1
                self.missed.add()
                self.generated_late.add(num_frames)
        if stall_s > 0:
            self.stalls.add()
            self.stalled.add(stall_s)

    def lost(self, report: SessionReport, num_frames: int, *, clip_frames: int) -> None:
        """Count pictures of an input that nobody will draw; so many make a clip."""
        if not num_frames:
            return
        self.input_dropped.add(num_frames)
        before = report.num_dropped
        report.num_frames_lost += num_frames
        report.num_dropped = report.num_frames_lost // max(1, clip_frames)
        self.missed.add(max(0, report.num_dropped - before))


def _drops(metrics: Metrics, cause: str) -> Counter:
    about = "Pictures given up: at the input, drawn too late, held instead of drawn, not shown."
    return metrics.counter("streamgen_dropped_total", about, {"cause": cause})
