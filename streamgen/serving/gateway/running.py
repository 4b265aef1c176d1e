"""A web server that drains: at the first SIGTERM nothing new begins, and what runs may finish.

SIGTERM -> draining -> all have left, or the time is up -> the server ends
SIGINT, or a second SIGTERM -> it ends at once
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from types import FrameType
from typing import Protocol

import uvicorn

from streamgen.clock import Clock

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.1


class Drainable(Protocol):
    """What has visitors that should not be cut off."""

    @property
    def num_visitors(self) -> int: ...

    @property
    def has_failed(self) -> bool:
        """Whether nothing will ever be drawn here again."""
        ...

    def drain(self) -> None:
        """Let nothing new begin; called in the event loop."""
        ...


class DrainingServer(uvicorn.Server):
    """Runs an application until it has drained."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Drainable,
        *,
        drain_s: float,
        clock: Clock,
        when_up: Callable[[], None] | None = None,
    ) -> None:
        """`drain_s`: how long visitors may stay; `when_up` is called when requests are answered."""
        super().__init__(config)
        self._service = service
        self._drain_s = drain_s
        self._clock = clock
        self._when_up = when_up
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]
        if self._when_up is not None:
            self._when_up()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and self._drain is None and self._loop is not None:
            self._loop.call_soon_threadsafe(self.drain)
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        return self._service.has_failed or await super().on_tick(counter)

    def drain(self) -> None:
        """Begin to drain; in the server's event loop."""
        if self._drain is None:
            self._drain = asyncio.ensure_future(self._run_dry())

    async def _run_dry(self) -> None:
        self._service.drain()
        until_s = self._clock.now() + self._drain_s
        while self._service.num_visitors and self._clock.now() < until_s:
            await asyncio.sleep(LOOK_EVERY_S)
        if self._service.num_visitors:
            logger.warning("%d visitors are cut off", self._service.num_visitors)
        self.should_exit = True
