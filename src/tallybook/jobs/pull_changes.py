"""Keeps Tallybook up to date with HubSpot: follows hints, and searches for what nobody hinted at."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import structlog

from tallybook.domain.errors import TallybookError, Unavailable
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.client import BATCH_SIZE
from tallybook.jobs import import_students
from tallybook.jobs.lease import JobResult, JobRunningError, under_lease
from tallybook.jobs.pauses import pause
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.poll_changes import poll_changes
from tallybook.usecases.pull_changes import Followed, Lease, claim_hints, follow_hints

JOB = "pull"
POLL_JOB = "poll"

_IN_FLIGHT = 2
_LOOK_EVERY_S = 0.25
# Plans made for empty tables get slower with all that is stored; autovacuum would notice minutes later.
_STATISTICS_AFTER = frozenset((5, 50, 500))
_POLL_EVERY_S = 5.0
_BACK_OFF_S = (1.0, 30.0)
# Longer than a call may take: what is being read when everything stops is brought to its end.
_STOP_WITHIN_S = 20.0

_log = structlog.get_logger(__name__)


async def run_pull(mirror: Mirror, stop: asyncio.Event) -> None:
    """Pulls until `stop` is set; then what is being read is finished first.

    Any number of processes may do this: each hint is followed by one of them, and one of them searches.
    """
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_Follower(mirror, stop).run())
        tasks.create_task(_poll_for_ever(mirror, stop))


async def pull_until(mirror: Mirror, *, max_s: float, full: bool = False) -> JobResult:
    """Searches once for what has changed and follows all hints that are due, for `max_s` seconds at most.

    `full`: reads everything there is before. `done`: the import and every search came to their end, and
    nothing is left that is due now. Raises CrmBusy, CrmUnavailable, SetupError, DatabaseUnavailable.
    """
    ends_at = time.monotonic() + max_s
    counts: Counter[str] = Counter()
    if full and not await _import_all(mirror, counts, max_s=max_s):
        return JobResult(dict(counts), done=False)
    has_polled_all = await _poll_once(mirror, counts, go_on=lambda: time.monotonic() < ends_at)
    rounds = 0
    while time.monotonic() < ends_at:
        leases = [
            await claim_hints(mirror.db, [mirrored]) for mirrored in MirroredType for _ in range(_IN_FLIGHT)
        ]
        followed = await asyncio.gather(
            *(follow_hints(mirror, lease) for lease in leases if lease), return_exceptions=True
        )
        if not followed:
            return JobResult(dict(counts), done=has_polled_all)
        for each in followed:
            if isinstance(each, BaseException):
                raise each
            counts.update(asdict(each))
        rounds += 1
        if rounds in _STATISTICS_AFTER:
            await mirror.db.fetch_all("refresh_statistics")
    return JobResult(dict(counts), done=False)


async def _import_all(mirror: Mirror, counts: Counter[str], *, max_s: float) -> bool:
    """Whether the import came to its end; one that runs elsewhere is left to itself."""
    try:
        imported = await under_lease(
            mirror.db, import_students.JOB, partial(import_students.import_students, mirror, max_s=max_s)
        )
    except JobRunningError:
        counts["already_importing"] += 1
        return True
    counts.update(imported.counts)
    return imported.done


async def _poll_once(mirror: Mirror, counts: Counter[str], *, go_on: Callable[[], bool]) -> bool:
    """One pass over each type, unless somebody else is searching; whether all came to their end."""

    async def work() -> JobResult:
        passes = [await poll_changes(mirror, mirrored, go_on=go_on) for mirrored in MirroredType]
        for each in passes:
            counts.update(searches=each.searches, found=each.found, asked=each.asked)
        return JobResult(dict(counts), done=all(each.done for each in passes))

    try:
        return (await under_lease(mirror.db, POLL_JOB, work)).done
    except JobRunningError:
        counts["already_polling"] += 1
        return True


async def _poll_for_ever(mirror: Mirror, stop: asyncio.Event) -> None:
    """Searches again and again as long as this process holds the lease; the others wait for it."""

    async def work() -> JobResult:
        async with asyncio.TaskGroup() as tasks:
            for mirrored in MirroredType:
                tasks.create_task(_poll_type(mirror, mirrored, stop))
        return JobResult()

    while not stop.is_set():
        try:
            await under_lease(mirror.db, POLL_JOB, work)
        except JobRunningError:
            pass
        except TallybookError as error:
            _log.warning("poll_failed", error=error.code)
        await pause(stop, _POLL_EVERY_S)


async def _poll_type(mirror: Mirror, mirrored: MirroredType, stop: asyncio.Event) -> None:
    wait_s = _BACK_OFF_S[0]
    while not stop.is_set():
        started = time.monotonic()
        try:
            polled = await poll_changes(mirror, mirrored, go_on=lambda: not stop.is_set())
        except TallybookError as error:
            _log.warning("poll_failed", object_type=mirrored, error=error.code)
            await pause(stop, _back_off_s(error, wait_s))
            wait_s = min(wait_s * 2, _BACK_OFF_S[1])
            continue
        wait_s = _BACK_OFF_S[0]
        if polled.asked:
            _log.info("polled", object_type=mirrored, found=polled.found, asked=polled.asked)
        await pause(stop, started + _POLL_EVERY_S - time.monotonic())


class _Follower:
    """Claims hints as long as there is room, and leaves the rest to at most two tasks a type."""

    def __init__(self, mirror: Mirror, stop: asyncio.Event) -> None:
        self._mirror = mirror
        self._stop = stop
        self._under_way: Counter[MirroredType] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._full_leases = 0
        self._back_off_until = 0.0
        self._wait_s = _BACK_OFF_S[0]

    async def run(self) -> None:
        """Until stopped."""
        try:
            while not self._stop.is_set():
                wait_s = await self._step()
                if wait_s > 0:
                    await pause(self._stop, wait_s)
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_STOP_WITHIN_S)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _step(self) -> float:
        """Sends one lease on its way; how long to wait where there is none."""
        room = [mirrored for mirrored in MirroredType if self._under_way[mirrored] < _IN_FLIGHT]
        backing_off_s = self._back_off_until - time.monotonic()
        if not room or backing_off_s > 0:
            return max(_LOOK_EVERY_S, backing_off_s) if room else _LOOK_EVERY_S / 5
        try:
            lease = await claim_hints(self._mirror.db, room)
        except TallybookError as error:
            self._failed(error)
            return _LOOK_EVERY_S
        if lease is None:
            return _LOOK_EVERY_S
        self._under_way[lease.mirrored] += 1
        task = asyncio.create_task(self._follow(lease))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return 0.0

    async def _follow(self, lease: Lease) -> None:
        try:
            followed = await follow_hints(self._mirror, lease)
            if len(lease.hints) >= BATCH_SIZE:
                self._full_leases += 1
                if self._full_leases in _STATISTICS_AFTER:
                    await self._mirror.db.fetch_all("refresh_statistics")
        except TallybookError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - one lease must not stop the others; it ends by itself.
            _log.error("pull_failed", error=type(error).__name__, exc_info=error)
        else:
            self._wait_s = _BACK_OFF_S[0]
            _tell(lease, followed)
        finally:
            self._under_way[lease.mirrored] -= 1

    def _failed(self, error: TallybookError) -> None:
        _log.warning("pull_failed", error=error.code)
        self._back_off_until = time.monotonic() + _back_off_s(error, self._wait_s)
        self._wait_s = min(self._wait_s * 2, _BACK_OFF_S[1])


def _tell(lease: Lease, followed: Followed) -> None:
    _log.info(
        "pulled",
        object_type=lease.mirrored,
        **{name: count for name, count in asdict(followed).items() if count},
    )


def _back_off_s(error: TallybookError, wait_s: float) -> float:
    asked_s = error.retry_after_s if isinstance(error, Unavailable) else 0
    return max(wait_s, min(asked_s, 60)) * random.uniform(0.75, 1.25)  # noqa: S311 - spreads, hides nothing.
