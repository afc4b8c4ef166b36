"""`tallybook worker`: keeps HubSpot in step and runs the periodic jobs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tallybook.cli.session import database_settings
from tallybook.domain.errors import DatabaseUnavailable, SetupError

if TYPE_CHECKING:
    from tallybook.settings import Settings
    from tallybook.wiring import Parts

_POOL_SIZE = 12
_LOOK_AGAIN_S = 2.0


def worker(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Do everything that waits, and each job once; then stop.")
    ] = False,
    stop_with_stdin: Annotated[
        bool, typer.Option("--stop-with-stdin", help="Stop when standard input closes.", hidden=True)
    ] = False,
) -> None:
    """Keep HubSpot in step and run the periodic jobs, until stopped. Several workers share the work."""
    from tallybook.wiring import configure_logging

    with database_settings() as settings:
        configure_logging(settings)
        if asyncio.run(_work(settings, once=once, stop_with_stdin=stop_with_stdin)) is signal.SIGINT:
            # As every command that was interrupted ends.
            raise KeyboardInterrupt


async def _work(settings: Settings, *, once: bool, stop_with_stdin: bool) -> signal.Signals | None:
    """Gives the signal that ended it."""
    import structlog

    from tallybook.jobs.worker import run_once, run_worker
    from tallybook.wiring import opened, worker_jobs, worker_loops, worker_run

    stop = asyncio.Event()
    told: list[signal.Signals] = []
    loop = asyncio.get_running_loop()

    def end(by: signal.Signals) -> None:
        told.append(by)
        stop.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, end, each)
    if stop_with_stdin:
        loop.add_reader(sys.stdin, _stop_at_end, stop)
    async with opened(settings, pool_size=_POOL_SIZE) as parts:
        await _ready(parts, stop)
        if once:
            await asyncio.gather(*map(run_once, () if stop.is_set() else worker_run(parts)))
        elif not stop.is_set():
            loops = worker_loops(parts)
            structlog.get_logger().info("worker_started", loops=sorted(loops), observe=settings.observes)
            await run_worker(loops, worker_jobs(parts), stop)
    return told[0] if told else None


async def _ready(parts: Parts, stop: asyncio.Event) -> None:
    """Waits for a database that does not answer; a schema or a catalog that does not fit is a SetupError."""
    import structlog

    from tallybook.jobs.pauses import pause

    while not stop.is_set():
        try:
            await parts.demand_readiness()
        except (DatabaseUnavailable, SetupError) as error:
            # Only what a person has to change ends the worker; a database comes back.
            if not isinstance(error.__cause__ or error, DatabaseUnavailable):
                raise
            structlog.get_logger().warning("worker_waits", code=DatabaseUnavailable.code)
            await pause(stop, _LOOK_AGAIN_S)
        else:
            return


def _stop_at_end(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()
        asyncio.get_running_loop().remove_reader(sys.stdin)
