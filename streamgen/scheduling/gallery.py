"""The workloads by which policies are compared: each one sort of evening, as short as wished."""

from __future__ import annotations

from dataclasses import replace

from streamgen.scheduling.kinds import Kind
from streamgen.scheduling.workload import Workload

TIGHT = Kind(latency_s=0.3, first_frame_s=1.0, steps=1)
PATIENT = Kind(fps=8.0, latency_s=3.0, first_frame_s=4.0, steps=4, min_steps=4, chunk_frames=3)
PLAYBACK = Kind(latency_s=0.0, first_frame_s=3.0, steps=4, min_steps=4)
LARGE_PLAYBACK = Kind(
    fps=8.0, latency_s=0.0, first_frame_s=4.0, steps=4, min_steps=4, chunk_frames=3
)
SLOW = Kind(fps=8.0, latency_s=2.0, first_frame_s=3.0, steps=4, min_steps=4)


def gallery(seconds: float, *, seed: int = 0) -> dict[str, Workload]:
    """Workloads by what is special about them."""
    third = seconds / 3

    def workload(**settings: object) -> Workload:
        return Workload(seconds=seconds, seed=seed, **settings)  # type: ignore[arg-type]

    return {
        "steady": workload(sessions=4),
        "at 95 % of what there is": workload(sessions=5, fps=(17.6,)),
        "text to video": workload(sessions=5, latency_s=0.0),
        "mixed rates": workload(sessions=6, fps=(8.0, 16.0, 12.0)),
        "churn": workload(arrivals_a_minute=20.0, stay_s=15.0),
        "bursts of arrivals": workload(arrivals_a_minute=20.0, burst=4, stay_s=20.0),
        "twice too many": workload(sessions=12, min_steps=2),
        "twice too many who accept less": workload(sessions=12, min_fps=8.0),
        "slow consumers": workload(sessions=4, latency_s=0.0, viewer_rate=0.5),
        "hardware at half its speed": workload(
            sessions=4, slowdown=2.0, slow_from_s=10.0, slow_until_s=max(20.0, 10.0 + third / 2)
        ),
        "bursts of motion": workload(sessions=7, accepts_still=True, still_share=0.5, min_steps=2),
        "tiny model on a CPU": workload(
            hardware="tiny-cpu", sessions=6, latency_s=0.8, min_steps=2
        ),
        "a large model": workload(hardware="h200-14b-tiny-codec", sessions=2, fps=(8.0,)),
        "two engines": workload(sessions=10, gpus=2),
        "noisy costs": workload(sessions=4, noise=0.1),
        "the full codec": workload(
            hardware="h100-1.3b", sessions=3, fps=(8.0, 4.0), latency_s=1.2, min_steps=2
        ),
        "tight deadlines beside playback": workload(sessions=6, kinds=(TIGHT, PLAYBACK)),
        "tight deadlines beside large chunks": workload(sessions=5, kinds=(TIGHT, PATIENT)),
        "newcomers of many kinds": workload(
            arrivals_a_minute=20.0, stay_s=15.0, kinds=(TIGHT, LARGE_PLAYBACK, SLOW, PLAYBACK)
        ),
        "weights": workload(
            sessions=6,
            kinds=(
                replace(TIGHT, steps=2, latency_s=0.4, weight=3.0),
                replace(LARGE_PLAYBACK, min_steps=1),
            ),
        ),
        "a large model for two kinds": workload(
            hardware="h200-14b-tiny-codec",
            sessions=3,
            kinds=(replace(TIGHT, fps=8.0, latency_s=0.9), replace(PLAYBACK, fps=4.0)),
        ),
    }
