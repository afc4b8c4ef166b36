"""What a worker does: loops that live as long as it does, and jobs that come round."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from tallybook.domain.errors import TallybookError
from tallybook.jobs.pauses import pause

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 15.0
# What is under way when the worker is told to stop may take one call to HubSpot more.
_STOP_WITHIN_S = 40.0

_log = structlog.get_logger(__name__)

Loop = Callable[[asyncio.Event], Awaitable[None]]
"""Works until the event is set."""


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job that comes round every so often; `at_the_minute`: when a minute begins."""

    name: str
    every_s: float
    run: Callable[[], Awaitable[Mapping[str, Any]]]
    at_the_minute: bool = False


async def run_worker(loops: Mapping[str, Loop], periodic: Sequence[Periodic], stop: asyncio.Event) -> None:
    """Runs all of it until `stop` is set, then lets what is under way come to its end.

    Whatever fails is logged and begun again, after a pause that grows to a quarter of a minute.
    """
    tasks = [asyncio.create_task(keep_running(name, loop, stop)) for name, loop in loops.items()]
    tasks += [asyncio.create_task(come_round(each, stop)) for each in periodic]
    await stop.wait()
    _log.info("worker_stopping")
    _, late = await asyncio.wait(tasks, timeout=_STOP_WITHIN_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def keep_running(name: str, loop: Loop, stop: asyncio.Event) -> None:
    """Begins the loop again whenever it ends before its time."""
    wait_s = _FIRST_PAUSE_S
    while not stop.is_set():
        began = time.monotonic()
        try:
            await loop(stop)
        except Exception as error:  # noqa: BLE001 - a worker survives whatever happens to one of its loops.
            _tell(name, error)
        if time.monotonic() - began > _LONGEST_PAUSE_S:
            wait_s = _FIRST_PAUSE_S
        await pause(stop, wait_s * random.uniform(0.75, 1.25))  # noqa: S311 - spreads load, no secret.
        wait_s = min(wait_s * 2, _LONGEST_PAUSE_S)


async def come_round(job: Periodic, stop: asyncio.Event) -> None:
    """Runs the job now and then every so often."""
    while not stop.is_set():
        await run_once(job)
        wait_s = job.every_s
        if job.at_the_minute:
            wait_s -= time.time() % job.every_s
        await pause(stop, wait_s)


async def run_once(job: Periodic) -> None:
    """One run, whatever comes of it."""
    try:
        told = await job.run()
    except Exception as error:  # noqa: BLE001 - as above
        _tell(job.name, error)
        return
    counts = told.get("counts")
    if not (isinstance(counts, dict) and counts and not any(counts.values())):
        _log.info("job_done", job=job.name, **told)


def _tell(name: str, error: Exception) -> None:
    found = [error]
    while found and isinstance(found[0], ExceptionGroup):
        found = [*found[0].exceptions, *found[1:]]
    first = found[0]
    if isinstance(first, TallybookError):
        _log.warning("job_failed", job=name, code=first.code, message=first.message)
    else:
        _log.error("job_failed", job=name, error=type(first).__name__, exc_info=first)
