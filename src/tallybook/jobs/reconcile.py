"""The job behind `reconcile`: everything is compared once a day, a slice at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tallybook.jobs.lease import JobResult
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.reconcile_mirror import last_reconcile, reconcile_mirror

JOB = "reconcile"
_EVERY = timedelta(days=1)


async def reconcile(
    mirror: Mirror, *, max_s: float, repair: bool = True, go_on: Callable[[], bool] = lambda: True
) -> JobResult:
    """Compares as much as the time and `go_on` allow; the next run goes on where this one stopped.

    The counts are those of the whole reconcile so far; `calls` says how many calls to HubSpot it took.
    """
    ends_at = time.monotonic() + max_s
    result = await reconcile_mirror(
        mirror, repair=repair, go_on=lambda: time.monotonic() < ends_at and go_on()
    )
    return JobResult(dict(result.counts), done=result.done)


async def reconcile_daily(mirror: Mirror, *, max_s: float) -> JobResult:
    """The same, unless the last one began less than a day ago."""
    began_at, is_under_way = await last_reconcile(mirror.db)
    if not is_under_way and began_at is not None and datetime.now(UTC) - began_at < _EVERY:
        return JobResult()
    return await reconcile(mirror, max_s=max_s)
