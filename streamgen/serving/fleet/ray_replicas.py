"""Replicas that Ray Serve places: on which machine and how many is Ray's business, the rest ours.

A replica of the deployment starts the same process as without Ray (processes.py), says in a named
actor where it listens, and ends it when Ray ends the replica. When the process dies the replica's
health check fails, and Ray starts another one. How many there should be is `Scaling`'s word, which
the deployment's autoscaling policy repeats to Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from streamgen.clock import MonotonicClock
from streamgen.errors import ConfigError, StreamGenError, install_command
from streamgen.serving.fleet.processes import ReplicaProcess
from streamgen.serving.fleet.scaling import Scaling
from streamgen.serving.gateway.bodies import Load

logger = logging.getLogger(__name__)

APPLICATION = "streamgen"
DIRECTORY = "streamgen-directory"
HEALTH_EVERY_S = 2.0
LOOK_EVERY_S = 0.2
UP_AFTER_S, DOWN_AFTER_S = 5.0, 60.0  # that another number must have been wanted
LOOK_BACK_S = 10.0  # over which Ray averages what is wanted
GOODBYE_S = 5.0  # beside the time that streams have to move


class Directory:
    """An actor: where replicas listen, and how many there should be."""

    def __init__(self, least: int) -> None:
        self._addresses: dict[str, str] = {}
        self._wanted = least

    def enter(self, name: str, address: str) -> None:
        self._addresses[name] = address

    def leave(self, name: str) -> None:
        self._addresses.pop(name, None)

    def addresses(self) -> dict[str, str]:
        return self._addresses

    def want(self, count: int) -> None:
        self._wanted = count

    def wanted(self) -> int:
        return self._wanted


class EngineReplica:
    """A replica of the deployment: one engine in a process of its own."""

    def __init__(self, command: Sequence[str], token: str, drain_s: float) -> None:
        import ray
        from ray import serve

        context = serve.get_replica_context()
        self._name = context.replica_id.unique_id
        self._drain_s = drain_s
        self._directory: Any = ray.get_actor(DIRECTORY, namespace=APPLICATION)
        command = [sys.executable, *command[1:], "--host", ray.util.get_node_ip_address()]
        self._process = ReplicaProcess(self._name, command, token, MonotonicClock().now())

    async def check_health(self) -> None:
        """Called by Ray every HEALTH_EVERY_S; raises when the process has ended."""
        if self._process.exit_code is not None:
            await self._directory.leave.remote(self._name)
            raise StreamGenError(f"the engine ended with code {self._process.exit_code}")
        if self._process.address is not None:
            await self._directory.enter.remote(self._name, self._process.address)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked for by Ray for its policy: how many replicas the router wants."""
        import ray

        wanted: Any = ray.get(self._directory.wanted.remote())
        return {"wanted": float(wanted)}

    async def __del__(self) -> None:
        """Called by Ray before the replica ends: the process drains, the router moves sessions."""
        self._process.terminate()
        clock = MonotonicClock()
        until_s = clock.now() + self._drain_s + GOODBYE_S
        while self._process.exit_code is None and clock.now() < until_s:
            await asyncio.sleep(LOOK_EVERY_S)
        self._process.end(0.0)
        await self._directory.leave.remote(self._name)


def follow_router(context: Any) -> tuple[int, dict[str, Any]]:
    """Ray's autoscaling policy: as many as the router wants, within Ray's bounds."""
    wanted = (context.aggregated_metrics or {}).get("wanted", {})
    count = round(max(wanted.values())) if wanted else context.target_num_replicas
    least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return max(least, min(most, count)), {}


class RayReplicas:
    """The `Replicas` of a Ray cluster; starts Ray on this machine if no address is given."""

    def __init__(
        self,
        command: Sequence[str],
        scaling: Scaling,
        *,
        token: str,
        address: str | None,
        gpus: int,
        drain_s: float,
    ) -> None:
        """`gpus`: that each replica takes; 0 for CPUs. Raises ConfigError."""
        if find_spec("ray") is None:
            raise ConfigError(f"--ray needs ray; install it: {install_command('ray')}")
        import ray
        from ray import serve
        from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, ProxyLocation

        try:
            ray.init(
                address=address, namespace=APPLICATION, log_to_driver=True,
                include_dashboard=False, logging_level=logging.WARNING,
            )  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"no Ray cluster at {address!r}: {error}") from error
        self._ray, self._serve, self._scaling = ray, serve, scaling
        self._directory = (
            ray.remote(Directory).options(name=DIRECTORY, num_cpus=0).remote(scaling.least)
        )
        serve.start(proxy_location=ProxyLocation.Disabled)
        deployment = serve.deployment(
            EngineReplica,
            name="engine",
            ray_actor_options={"num_cpus": 0 if not gpus else 1, "num_gpus": gpus},
            health_check_period_s=HEALTH_EVERY_S,
            graceful_shutdown_timeout_s=drain_s + 2 * GOODBYE_S,
            autoscaling_config=AutoscalingConfig(
                min_replicas=scaling.least,
                max_replicas=scaling.most,
                initial_replicas=scaling.least,
                upscale_delay_s=UP_AFTER_S,
                downscale_delay_s=DOWN_AFTER_S,
                look_back_period_s=LOOK_BACK_S,
                metrics_interval_s=HEALTH_EVERY_S,
                policy=AutoscalingPolicy(policy_function=follow_router),
            ),
        )
        serve._run(
            deployment.bind(list(command), token, drain_s), name=APPLICATION, route_prefix=None,
            _blocking=False,
        )  # fmt: skip
        self._known: dict[str, str] = {}

    async def addresses(self) -> Mapping[str, str]:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._known = dict(await self._directory.addresses.remote())
        return self._known

    async def report(self, loads: Sequence[Load], waiting: int) -> None:
        wanted = self._scaling.wanted(loads, waiting=waiting)
        with contextlib.suppress(self._ray.exceptions.RayError):
            await self._directory.want.remote(wanted)

    def close(self) -> None:
        """End all replicas, and Ray if it was started here."""
        self._serve.shutdown()
        self._ray.shutdown()
