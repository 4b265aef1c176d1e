"""An engine with who decides in it: the policy, and the governor beside "slo_aware"."""

from __future__ import annotations

from streamgen.cache.rows import RowPool
from streamgen.clock import Clock
from streamgen.engine.engine import Engine
from streamgen.engine.executor import Executor
from streamgen.metrics.export import Metrics
from streamgen.metrics.trace import Trace
from streamgen.scheduling.capacity import Capacity, Governor
from streamgen.scheduling.latency import LatencyModel
from streamgen.scheduling.policy import Policy, Sequential, StreamBatch
from streamgen.scheduling.slo import SloAware

TRACE_SPANS = 20_000  # the newest; some minutes of a busy engine


def make_engine(
    executor: Executor,
    policy: str | Policy,
    *,
    num_rows: int,
    clock: Clock,
    metrics: Metrics,
    latency: LatencyModel | None = None,
) -> Engine:
    """An engine over so many cache rows, under a policy or the one that the settings name."""
    return Engine(
        executor,
        policy_of(policy) if isinstance(policy, str) else policy,
        rows=RowPool(num_rows),
        max_rows=num_rows,
        clock=clock,
        metrics=metrics,
        trace=Trace(clock, capacity=TRACE_SPANS),
        governor=governor_of(policy, num_rows=num_rows),
        latency=latency,
    )


def policy_of(name: str) -> Policy:
    """The policy that the settings name."""
    match name:
        case "stream_batch":
            return StreamBatch()
        case "sequential":
            return Sequential()
        case "slo_aware":
            return SloAware()
        case _:
            raise ValueError(f"no policy {name!r}")


def governor_of(policy: str | Policy, *, num_rows: int) -> Governor | None:
    """Admits sessions and chooses their rungs by capacity; other policies have none."""
    if policy != "slo_aware":
        return None
    return Governor(Capacity(max_rows=num_rows, cache_rows=num_rows))
