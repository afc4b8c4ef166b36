"""A real server on a real socket in front of a route table that a test chooses."""

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
import structlog
import uvicorn

from tallybook.api.app import ApiConfig, AppDeps, create_app
from tallybook.api.callers import Access
from tallybook.api.logs import configure_logs
from tallybook.api.reading import Shape
from tallybook.api.replies import Reply, success_of
from tallybook.api.route import Call, Route
from tallybook.api.services import Services
from tallybook.api.tokens import StudentTokens
from tallybook.domain.catalog import default_catalog_text, parse_catalog
from tallybook.postgres.pool import Database

SECRET = "a secret key of the tests, long enough to be one"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Served:
    """A running server: its client, its address and what it logged."""

    http: httpx.AsyncClient
    port: int
    stream: io.BytesIO
    clock: Clock
    stop: Callable[[], Awaitable[None]]

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        lines = [msgspec.json.decode(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in lines if event is None or line["event"] == event]

    def student_token(self, **claims: Any) -> str:
        tokens = StudentTokens(SECRET, previous=None, clock=self.clock)
        named = {"contact_id": UUID(int=7), "epoch": 1, "hubspot_id": "101"} | claims
        return tokens.issue(**named)[0]

    def as_student(self, **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.student_token(**claims)}"}


Handle = Callable[[Services, Call], Awaitable[Reply]]


async def no_key(_key_id: str) -> None:
    return None


async def answer_ok(_services: Services, _call: Call) -> Reply:
    return success_of("ok")


def a_route(
    handler: Handle = answer_ok,
    *,
    method: str = "POST",
    path: str = "/thing",
    access: Access = Access.PUBLIC,
    body: type[Shape] | None = None,
    query: type[Shape] | None = None,
) -> Route:
    return Route(
        method=method, path=path, access=access, handler=handler, summary="A thing", body=body, query=query
    )


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    # asyncio leaves a ready-made socket as it is; without this each answer waits 40 ms for the client's ACK.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on", access_log=False))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started:
            assert not serving.done(), "the server did not start"
            await asyncio.sleep(0.005)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        listening.close()


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server; keyword arguments are settings or dependencies of the application."""
    async with AsyncExitStack() as stack:

        async def start(routes: Iterable[Route] | None = None, **given: Any) -> Served:
            stream, clock = io.BytesIO(), Clock()
            configure_logs(stream)
            settings = {name: given.pop(name) for name in ApiConfig.__dataclass_fields__ if name in given}
            deps = AppDeps(
                **(
                    {
                        "db": Database("postgresql://nobody@127.0.0.1:1/nothing", connect_timeout_s=1),
                        "students": None,
                        "catalog": parse_catalog(default_catalog_text(), file="catalog.toml"),
                        "config": ApiConfig(**({"secret_key": SECRET, "login_code": False} | settings)),
                        "find_key": no_key,
                        "clock": clock,
                    }
                    | given
                )
            )
            app = create_app(deps) if routes is None else create_app(deps, routes=routes)
            one = await stack.enter_async_context(AsyncExitStack())
            port = await one.enter_async_context(running(app))
            http = await one.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}"))
            return Served(http, port, stream, clock, one.aclose)

        yield start
    structlog.reset_defaults()


@pytest.fixture
def route() -> Callable[..., Route]:
    return a_route


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def secret() -> str:
    return SECRET
