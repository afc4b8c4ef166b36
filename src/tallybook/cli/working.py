"""`tallybook worker`: the periodic jobs, without anybody calling the cron addresses."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from tallybook.cli.session import database_settings

if TYPE_CHECKING:
    from tallybook.settings import Settings
    from tallybook.wiring import Parts

_JOBS_EVERY_S = {"activate-scheduled-exams": 60.0}
_LONGEST_RUN_S = 50.0


def worker(
    *, once: Annotated[bool, typer.Option("--once", help="Run every job once, then stop.")] = False
) -> None:
    """Run the periodic jobs until stopped. Several workers never do the same job at once."""
    from tallybook.wiring import configure_logging

    with database_settings() as settings:
        configure_logging(settings)
        asyncio.run(_work(settings, once=once))


async def _work(settings: Settings, *, once: bool) -> None:
    from tallybook.wiring import opened

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    async with opened(settings, pool_size=4) as parts:
        await parts.demand_readiness()
        await asyncio.gather(
            *(_repeat(parts, job, every_s, stop, once=once) for job, every_s in _JOBS_EVERY_S.items())
        )


async def _repeat(parts: Parts, job: str, every_s: float, stop: asyncio.Event, *, once: bool) -> None:
    import structlog

    from tallybook.domain.errors import TallybookError
    from tallybook.wiring import cron_jobs

    log = structlog.get_logger("tallybook.worker")
    run = cron_jobs(parts)[job]
    while not stop.is_set():
        try:
            log.info("job_done", job=job, **await run(_LONGEST_RUN_S))
        except TallybookError as error:
            # The database may be away for a while; the next turn tries again.
            log.warning("job_failed", job=job, code=error.code)
        if once:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_s)
