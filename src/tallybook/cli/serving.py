"""`tallybook serve`: the HTTP server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from tallybook.cli.session import database_settings
from tallybook.domain.errors import SetupError

if TYPE_CHECKING:
    import socket

    import uvicorn

    from tallybook.settings import Settings

# Together with closing they stay below the ten seconds after which supervisors kill.
_DRAIN_S = 8


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 8000,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; default TALLYBOOK_WORKERS or 1.")
    ] = None,
) -> None:
    """Run the server. It never changes the schema: run `tallybook migrate` first."""
    import structlog

    from tallybook.wiring import configure_logging

    with ExitStack() as held:
        settings = held.enter_context(database_settings())
        _check(settings)
        listener = held.enter_context(listen(host, port))
        configure_logging(settings)
        processes = workers or settings.tallybook_workers
        structlog.get_logger().info(
            "listening", url=f"http://{_shown(host)}:{listener.getsockname()[1]}", processes=processes
        )
        held.enter_context(_stopped_quietly())
        if processes > 1:
            _run_many(settings, listener, processes, held)
        else:
            _run_one(settings, listener)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SetupError when the address is taken or is none of this machine's."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise SetupError(
            f"cannot listen on {_shown(host)}:{port}: {reason}",
            hint="Choose another with --port (or --host).",
        ) from None
    listener.set_inheritable(True)
    return listener


def server_config(app: object, **more: object) -> uvicorn.Config:
    """How uvicorn runs our application: one log line a request is ours, and stopping never takes long."""
    import uvicorn

    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # also the import string of a factory
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_DRAIN_S,
        backlog=2048,
        **more,  # type: ignore[arg-type]
    )


def _check(settings: Settings) -> None:
    import asyncio

    from tallybook.wiring import check_can_serve, opened

    async def inside() -> None:
        async with opened(settings, pool_size=1) as parts:
            await parts.demand_readiness()

    check_can_serve(settings)
    asyncio.run(inside())


def _run_one(settings: Settings, listener: socket.socket) -> None:
    import uvicorn

    from tallybook.wiring import assemble, create_application

    config = server_config(create_application(assemble(settings)), loop="uvloop")
    uvicorn.Server(config).run(sockets=[listener])


def _run_many(settings: Settings, listener: socket.socket, workers: int, held: ExitStack) -> None:
    from tempfile import TemporaryDirectory

    from uvicorn.supervisors import Multiprocess

    # Worker processes read the environment themselves; the embedded server is this process's to run.
    os.environ["DATABASE_URL"] = settings.needed("DATABASE_URL")
    os.environ["TALLYBOOK_EMBEDDED"] = "0"
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = held.enter_context(
        TemporaryDirectory(prefix="tallybook-metrics-")
    )
    config = server_config(
        "tallybook.wiring:application_from_environment", factory=True, workers=workers, loop="uvloop"
    )
    Multiprocess(config, sockets=[listener]).run()


@contextmanager
def _stopped_quietly() -> Iterator[None]:
    """Being told to stop is no failure: after uvicorn has drained, it repeats the signal to this process."""
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except SystemExit as end:
        if end.code != 0:
            raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
