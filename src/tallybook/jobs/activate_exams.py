"""The job behind `activate-scheduled-exams`."""

from __future__ import annotations

import time

from tallybook.jobs.lease import JobResult
from tallybook.postgres.pool import Database
from tallybook.usecases.open_scheduled_exams import open_scheduled_exams

JOB = "activate-scheduled-exams"


async def activate_exams(db: Database, *, max_s: float, observe: bool = False) -> JobResult:
    """Records all sessions whose opening minute has passed, and removes expired keys and challenges.

    `observe`: the other system opens its sessions by itself.
    """
    ends_at = time.monotonic() + max_s
    opened = 0
    await db.fetch_all("sweep")
    while not observe:
        found = await open_scheduled_exams(db)
        opened += found
        if found == 0:
            return JobResult({"opened": opened})
        if time.monotonic() >= ends_at:
            return JobResult({"opened": opened}, done=False)
    return JobResult({"opened": 0})
