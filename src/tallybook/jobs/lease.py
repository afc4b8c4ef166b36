"""One run at a time of each job, across all processes: a lease that is renewed while the job works."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from tallybook.domain.errors import TallybookError
from tallybook.postgres.pool import Database

# A killed process blocks its job for no longer than this.
_LEASE_S = 30.0
_RENEW_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a run did; `done` is false when it stopped at its time and the next run goes on."""

    counts: Mapping[str, int] = field(default_factory=dict)
    done: bool = True


class JobRunningError(TallybookError):
    """This job is running already."""

    code = "JOB_RUNNING"


class _LeaseLostError(TallybookError):
    """The job's lease was lost, so its work was stopped: somebody else may have begun it."""

    code = "LEASE_LOST"


async def under_lease(db: Database, job: str, work: Callable[[], Awaitable[JobResult]]) -> JobResult:
    """Does the work as the only one. Raises JobRunningError when somebody else does it at this moment."""
    token = uuid4()
    if await db.fetch_one("take_job_lease", {"job": job, "token": token, "lease_s": _LEASE_S}) is None:
        raise JobRunningError
    working = asyncio.ensure_future(work())
    renewing = asyncio.create_task(_renew(db, job, token))
    result: JobResult | None = None
    error: BaseException | None = None
    try:
        result = await _while_held(working, renewing)
    except BaseException as failure:
        error = failure
        raise
    finally:
        for task in (working, renewing):
            task.cancel()
        await asyncio.gather(working, renewing, return_exceptions=True)
        # Where the database is away the lease ends by itself.
        with suppress(TallybookError):
            await _end(db, job, token, result, error)
    return result


async def _while_held(working: asyncio.Future[JobResult], renewing: asyncio.Future[None]) -> JobResult:
    await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        raise _LeaseLostError
    return working.result()


async def report(db: Database, job: str, work: Callable[[], Awaitable[JobResult]]) -> dict[str, Any]:
    """Does the work and gives {counts, duration_ms, done}; a job that runs already is not begun again."""
    started = time.monotonic()
    try:
        result = await under_lease(db, job, work)
    except JobRunningError:
        result = JobResult({"already_running": 1}, done=False)
    except _LeaseLostError:
        # What it had done stays done, and somebody goes on.
        result = JobResult({"lease_lost": 1}, done=False)
    return {
        "counts": dict(result.counts),
        "duration_ms": round((time.monotonic() - started) * 1000, 1),
        "done": result.done,
    }


async def _renew(db: Database, job: str, token: UUID) -> None:
    while True:
        await asyncio.sleep(_RENEW_EVERY_S)
        renewed = None
        with suppress(TallybookError):
            renewed = await db.fetch_one("renew_job_lease", {"job": job, "token": token, "lease_s": _LEASE_S})
        if renewed is None:
            return


async def _end(
    db: Database, job: str, token: UUID, result: JobResult | None, error: BaseException | None
) -> None:
    await db.fetch_all(
        "end_job_lease",
        {
            "job": job,
            "token": token,
            "counts": json.dumps(dict(result.counts) if result else {}),
            # The kind alone: an exception's text may name a person.
            "error": None if error is None else type(error).__name__,
        },
    )
