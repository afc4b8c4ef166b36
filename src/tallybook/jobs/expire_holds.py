"""The job behind `expire-holds`."""

from __future__ import annotations

import time

from tallybook.jobs.lease import JobResult
from tallybook.postgres.pool import Database

JOB = "expire-holds"
_AT_ONCE = 100


async def expire_holds(db: Database, *, max_s: float) -> JobResult:
    """Gives back what overdue holds set aside. Decisions about a contact do so for that contact anyway."""
    ends_at = time.monotonic() + max_s
    contacts = 0
    while True:
        row = await db.fetch_one("sweep_holds", {"limit": _AT_ONCE})
        found = row[0] if row else 0
        contacts += found
        if found == 0:
            return JobResult({"contacts": contacts})
        if time.monotonic() >= ends_at:
            return JobResult({"contacts": contacts}, done=False)
