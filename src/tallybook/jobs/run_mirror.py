"""Keeps both sides in step for as long as database and portal belong together."""

from __future__ import annotations

import asyncio

import structlog

from tallybook.domain.errors import SetupError, TallybookError
from tallybook.jobs.pauses import pause
from tallybook.jobs.pull_changes import run_pull
from tallybook.jobs.push_changes import run_push
from tallybook.usecases.learn_own_source import learn_own_source
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.watch_portal import watch_portal

_LOOK_EVERY_S = 60.0
_LEARN_EVERY_S = 3600.0

_log = structlog.get_logger(__name__)


async def run_mirror(mirror: Mirror, stop: asyncio.Event) -> None:
    """Pushes and pulls until `stop` is set; what is under way is finished first.

    Raises SetupError as soon as the two do not belong together, CrmBusy and CrmUnavailable when that cannot
    be found out at the start.
    """
    await watch_portal(mirror)
    ours = asyncio.Event()
    problems: list[SetupError] = []

    async def stop_too() -> None:
        await stop.wait()
        ours.set()

    async def look() -> None:
        while not ours.is_set():
            await pause(ours, _LOOK_EVERY_S)
            try:
                await watch_portal(mirror)
            except SetupError as error:
                problems.append(error)
                ours.set()
            except TallybookError as error:
                # Not known at this moment; it was so a minute ago.
                _log.info("portal_not_checked", error=error.code)

    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(stop_too())
        tasks.create_task(look())
        tasks.create_task(_learn(mirror, ours))
        both = [tasks.create_task(run_push(mirror, ours)), tasks.create_task(run_pull(mirror, ours))]
        await asyncio.wait(both)
        ours.set()
        stopping.cancel()
    if problems:
        raise problems[0]


async def _learn(mirror: Mirror, stop: asyncio.Event) -> None:
    while not stop.is_set():
        source = None
        try:
            source = await learn_own_source(mirror)
        except TallybookError as error:
            _log.info("own_source_not_learned", error=error.code)
        await pause(stop, _LOOK_EVERY_S if source is None else _LEARN_EVERY_S)
