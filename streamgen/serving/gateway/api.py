"""The HTTP side of a server: what it offers, who streams, settings from outside, snapshots.

    GET    /livez                               200 while the process answers
    GET    /readyz                              200 when models are warm, else 503
    GET    /metrics                             Prometheus' text format
    GET    /openapi.json                        this, for programs
    GET    /streamgen/presets                   what can be started
    GET    /streamgen/load                      how full the server is
    GET    /streamgen/sessions                  who streams
    GET    /streamgen/sessions/{name}           one of them
    PATCH  /streamgen/sessions/{name}           another prompt, strength, ...
    DELETE /streamgen/sessions/{name}           end it
    POST   /streamgen/sessions/{name}/snapshot  where it is, for going on elsewhere
    POST   /streamgen/snapshots                 keep a snapshot for `start` with its name

The same routes serve one engine (server.py) and a fleet of them (router.py): each is a `Service`.
"""

from __future__ import annotations

from typing import Annotated, Protocol

from fastapi import FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse

from streamgen.errors import CapacityError, ConfigError, StreamGenError
from streamgen.serving.gateway.bodies import (
    Failure,
    HeldSnapshot,
    Load,
    SessionChange,
    SessionFacts,
    State,
)
from streamgen.serving.gateway.messages import GrantedSettings, PresetOffer, problem_of
from streamgen.serving.snapshot import MAX_SNAPSHOT_BYTES

SNAPSHOT_TYPE = "application/vnd.streamgen.session"


class NoSuchSessionError(ConfigError):
    """There is no session of that name."""


class Service(Protocol):
    """What stands behind the routes."""

    @property
    def state(self) -> State: ...

    def presets(self) -> list[PresetOffer]: ...

    def sessions(self) -> list[SessionFacts]: ...

    async def load(self) -> Load: ...

    async def change(self, name: str, change: SessionChange) -> GrantedSettings:
        """Raises NoSuchSessionError, ConfigError or CapacityError; so do the next two."""
        ...

    async def end(self, name: str) -> None: ...

    async def snapshot(self, name: str, *, leave: bool) -> bytes: ...

    async def hold(self, data: bytes) -> HeldSnapshot:
        """Raises ConfigError for what is no snapshot, CapacityError if too many wait."""
        ...

    async def metrics_text(self) -> str: ...


SessionName = Annotated[str, Path(max_length=100)]
NOT_HERE = {404: {"model": Failure, "description": "There is no session of that name."}}
NOT_SO = {400: {"model": Failure, "description": "It cannot be so; the message says why."}}
NOT_NOW = {503: {"model": Failure, "description": "Not now; `retry_after_s` says when."}}
TOO_LONG = {413: {"model": Failure, "description": "The body is too long."}}
BYTES = {"content": {SNAPSHOT_TYPE: {"schema": {"type": "string", "format": "binary"}}}}


def add_routes(app: FastAPI, service: Service) -> None:
    """Put the routes of this module on an application."""

    @app.exception_handler(StreamGenError)
    async def fail(request: Request, error: StreamGenError) -> Response:
        return _failure(error)

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return _failure(ConfigError(f"{where}: {first['msg']}"))

    @app.get("/livez", response_class=PlainTextResponse, tags=["process"])
    async def livez() -> str:
        """Whether the process answers. Needs no token."""
        return "alive\n"

    @app.get("/readyz", response_class=PlainTextResponse, tags=["process"])
    async def readyz() -> Response:
        """200 when models are loaded and warm, 503 before and after that. Needs no token."""
        state = service.state
        return PlainTextResponse(f"{state}\n", 200 if state is State.READY else 503)

    @app.get("/metrics", response_class=PlainTextResponse, tags=["process"])
    async def metrics() -> str:
        """Counters and gauges in Prometheus' text format."""
        return await service.metrics_text()

    @app.get("/streamgen/load", tags=["process"])
    async def load() -> Load:
        """How full the server is."""
        return await service.load()

    @app.get("/streamgen/presets", tags=["sessions"])
    async def presets() -> list[PresetOffer]:
        """What can be started."""
        return service.presets()

    @app.get("/streamgen/sessions", tags=["sessions"])
    async def sessions() -> list[SessionFacts]:
        """Who streams."""
        return service.sessions()

    @app.get("/streamgen/sessions/{name}", tags=["sessions"], responses={**NOT_HERE})
    async def session(name: SessionName) -> SessionFacts:
        """One session."""
        for one in service.sessions():
            if one.session == name:
                return one
        raise no_session(name)

    @app.patch(
        "/streamgen/sessions/{name}",
        tags=["sessions"],
        responses={**NOT_HERE, **NOT_SO, **NOT_NOW},
    )
    async def change(name: SessionName, change: SessionChange) -> GrantedSettings:
        """Change what is drawn; the visitor hears of it by `granted`."""
        return await service.change(name, change)

    @app.delete(
        "/streamgen/sessions/{name}", tags=["sessions"], status_code=204, responses={**NOT_HERE}
    )
    async def end(name: SessionName) -> None:
        """End a session; its visitor hears `ended`."""
        await service.end(name)

    @app.post(
        "/streamgen/sessions/{name}/snapshot",
        tags=["snapshots"],
        response_class=Response,
        responses={200: BYTES, **NOT_HERE},
    )
    async def snapshot(
        name: SessionName,
        leave: Annotated[bool, Query(description="end it here when all is shown")] = False,
    ) -> Response:
        """Where a session is: settings and the latents that its next picture looks back on."""
        return Response(await service.snapshot(name, leave=leave), media_type=SNAPSHOT_TYPE)

    @app.post(
        "/streamgen/snapshots",
        tags=["snapshots"],
        status_code=201,
        responses={**NOT_SO, **NOT_NOW, **TOO_LONG},
        openapi_extra={"requestBody": {"required": True, **BYTES}},
    )
    async def hold(request: Request) -> HeldSnapshot:
        """Keep a snapshot for a `start` that names it."""
        return await service.hold(await read_body(request, MAX_SNAPSHOT_BYTES))


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body of a request, read no further than it may be long."""
    parts, size = list[bytes](), 0
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > max_bytes:
        raise HTTPException(413, f"at most {max_bytes} bytes")
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise HTTPException(413, f"at most {max_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


def no_session(name: str) -> NoSuchSessionError:
    return NoSuchSessionError(f"no session {name[:100]!r} runs here; GET /streamgen/sessions")


def _failure(error: StreamGenError) -> Response:
    problem = problem_of(error, fatal=False)
    failure = Failure(
        message=problem.message,
        retryable=problem.retryable,
        retry_after_s=problem.retry_after_s,
    )
    code = 500
    headers: dict[str, str] = {}
    if isinstance(error, NoSuchSessionError):
        code = 404
    elif isinstance(error, ConfigError):
        code = 400
    elif isinstance(error, CapacityError):
        code = 503
        if problem.retry_after_s is not None:
            headers["retry-after"] = str(max(1, round(problem.retry_after_s)))
    return JSONResponse(failure.model_dump(), code, headers)
