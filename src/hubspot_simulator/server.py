"""Runs one portal on uvicorn."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn

from hubspot_simulator.app import create_app
from hubspot_simulator.settings import Settings


class PortTakenError(Exception):
    """The address is in use or may not be used."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; PortTakenError with one clear sentence when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error).removeprefix("bind(): ").rstrip(".")
        raise PortTakenError(f"Cannot listen on {host}:{port}: {reason}.") from None
    return listener


class _Server(uvicorn.Server):
    """uvicorn that says when it can be called."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[str], None] | None, url: str) -> None:
        super().__init__(config)
        self._ready = ready
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._ready is not None:
            self._ready(self._url)


async def serve(
    host: str = "127.0.0.1",
    port: int = 8100,
    settings: Settings | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is called with the address once calls are answered."""
    listener = listen(host, port)
    bound = listener.getsockname()[1]
    config = uvicorn.Config(
        create_app(settings),
        loop="none",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        date_header=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    shown = f"[{host}]" if ":" in host else host
    try:
        await _Server(config, ready, f"http://{shown}:{bound}").serve([listener])
    finally:
        listener.close()


def run(
    host: str = "127.0.0.1",
    port: int = 8100,
    settings: Settings | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """`serve` on an event loop of its own, uvloop where there is one."""
    try:
        import uvloop  # noqa: PLC0415 - absent on Windows.
    except ImportError:
        asyncio.run(serve(host, port, settings, ready))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(host, port, settings, ready))
