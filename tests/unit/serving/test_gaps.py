"""A gap lasts from the last tick that went well to the first chunk after it, and counts once."""

from __future__ import annotations

from streamgen.clock import SimulatedClock
from streamgen.metrics.export import Metrics
from streamgen.serving.gaps import Gaps


def test_two_losses_before_a_new_chunk_are_one_gap() -> None:
    clock = SimulatedClock()
    metrics = Metrics(clock)
    gaps = Gaps(metrics, clock)
    chunks = metrics.counter("streamgen_chunks_total", "Chunks that finished.")
    clock.sleep(5.0)
    gaps.ticked()
    clock.sleep(2.0)
    gaps.lost()
    clock.sleep(1.0)
    gaps.ticked()  # no chunk came of it
    gaps.lost()
    clock.sleep(0.5)
    chunks.add()
    gaps.ticked()
    assert metrics.counter("streamgen_gaps_total", "Times that a rank was lost.").value == 1
    seconds = metrics.summary(
        "streamgen_gap_seconds", "Seconds without a new chunk after a rank was lost."
    )
    assert seconds.percentiles().count == 1
    assert seconds.percentiles().total == 3.5
    clock.sleep(60.0)
    gaps.ticked()
    assert seconds.percentiles().count == 1
