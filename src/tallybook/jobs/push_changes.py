"""Keeps HubSpot up to date: every lane by itself, two batches of each on their way."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial

import structlog

from tallybook.domain.errors import TallybookError
from tallybook.domain.mirror import MirroredType
from tallybook.jobs.lease import JobResult
from tallybook.jobs.pauses import pause
from tallybook.usecases.guard_mirror import PortalGuard, demand_same_portal
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.outbox import Claim
from tallybook.usecases.push_changes import LANES, PushResult, claim_batch, push_claimed

JOB = "push"
_IN_FLIGHT = 2
_POLL_S = 0.25
_SHORTEST_WAIT_S = 0.005
_SOON_S = 3.0
_AFTER_ERROR_S = 2.0
# Longer than a call may take: what is on its way when everything stops is brought to its end.
_STOP_WITHIN_S = 30.0

_log = structlog.get_logger(__name__)


async def run_push(mirror: Mirror, stop: asyncio.Event) -> None:
    """Pushes what changes until `stop` is set; then what is on its way is finished first."""
    if mirror.observe:
        await stop.wait()
        return
    portal = PortalGuard(partial(demand_same_portal, mirror))
    async with asyncio.TaskGroup() as lanes:
        for lane in LANES:
            lanes.create_task(_Lane(mirror, lane, stop, portal).run())


async def push_until(mirror: Mirror, *, max_s: float) -> JobResult:
    """Pushes what waits now, without lingering, for `max_s` seconds at most.

    `waiting` counts what HubSpot has not been told at the end: because the time was over, or because it waits
    for something else (a lane that is paused, a record another one needs, its next attempt). `done`: nothing.
    """
    if mirror.observe:
        return JobResult()
    look = partial(demand_same_portal, mirror)
    await look()
    ends_at = time.monotonic() + max_s
    counts: Counter[str] = Counter()
    while True:
        stop, portal = asyncio.Event(), PortalGuard(look, is_known=True)
        rounds = [_Lane(mirror, lane, stop, portal) for lane in LANES]
        results = await asyncio.gather(*(each.drain(ends_at=ends_at) for each in rounds))
        for found in results:
            counts.update(found)
        claimed = sum(found["claimed"] for found in results)
        if claimed == 0 or time.monotonic() >= ends_at:
            row = await mirror.db.fetch_one("count_waiting")
            waiting = row[0] if row else 0
            return JobResult({**counts, "waiting": waiting}, done=waiting == 0)


class _Lane:
    """One lane's loop: claims, and leaves the rest to at most two tasks."""

    def __init__(
        self,
        mirror: Mirror,
        lane: MirroredType,
        stop: asyncio.Event,
        portal: PortalGuard,
    ) -> None:
        self._mirror = mirror
        self._lane = lane
        self._stop = stop
        self._portal = portal
        self._room = asyncio.Semaphore(_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Until stopped, whatever fails."""
        try:
            while not self._stop.is_set():
                wait_s = await self._step_or_log()
                if wait_s > 0:
                    await pause(self._stop, wait_s)
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_STOP_WITHIN_S)
            for task in self._tasks:
                task.cancel()

    async def drain(self, *, ends_at: float) -> Counter[str]:
        """Until nothing is due, nor will be in a moment: a new contact's numbers follow its record."""
        while time.monotonic() < ends_at:
            wait_s = await self._step(linger=False)
            if wait_s == 0:
                continue
            if self._tasks:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            elif wait_s is not None and wait_s < min(_SOON_S, ends_at - time.monotonic()):
                await pause(self._stop, wait_s)
            else:
                break
        if self._tasks:
            await asyncio.gather(*self._tasks)
        return self._counts

    async def _step_or_log(self) -> float:
        """One step; how long to wait before the next."""
        try:
            wait_s = await self._step(linger=True)
        except TallybookError as error:
            _log.warning("push_failed", lane=self._lane.value, error=error.code, problem=error.message)
            return _AFTER_ERROR_S
        except Exception as error:  # noqa: BLE001 - nothing may stop a lane for good.
            _log.error("push_failed", lane=self._lane.value, error=type(error).__name__, exc_info=error)
            return _AFTER_ERROR_S
        return _POLL_S if wait_s is None else min(_POLL_S, wait_s)

    async def _step(self, *, linger: bool) -> float | None:
        """Sends one batch on its way: 0. Where there is none: when to ask again, if that is known."""
        await self._room.acquire()
        sent = False
        try:
            if self._stop.is_set():
                return 0.0
            await self._portal.demand()
            got = await claim_batch(self._mirror, self._lane, linger=linger)
            if isinstance(got, PushResult):
                return None if got.wait_s is None else max(_SHORTEST_WAIT_S, got.wait_s)
            task = asyncio.create_task(self._push(got))
            sent = True
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return 0.0
        finally:
            if not sent:
                self._room.release()

    async def _push(self, claimed: Claim) -> None:
        try:
            result = await push_claimed(self._mirror, claimed)
        except TallybookError as error:
            # The database is away: the lease ends by itself, and what is unread is read first.
            _log.warning("push_failed", lane=self._lane.value, error=error.code)
            return
        except Exception as error:  # noqa: BLE001 - one batch must not stop the lane; its lease ends by itself.
            _log.error("push_failed", lane=self._lane.value, error=type(error).__name__, exc_info=error)
            return
        finally:
            self._room.release()
        self._count(result)

    def _count(self, result: PushResult) -> None:
        self._counts.update(
            claimed=result.claimed, written=result.written, dead=result.dead, failed=result.failed
        )
        if result.paused is not None:
            _log.warning("lane_paused", lane=self._lane.value, reason=result.paused)
