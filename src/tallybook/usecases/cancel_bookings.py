"""Cancels several of one student's own bookings, each with its own result."""

from __future__ import annotations

from collections.abc import Sequence

from tallybook.domain.callers import Caller
from tallybook.domain.contacts import Pair
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.ask import ask
from tallybook.usecases.find_student import Students
from tallybook.usecases.idempotency import Idempotency, key_params


async def cancel_bookings(
    db: Database,
    students: Students,
    *,
    caller: Caller,
    pair: Pair | None,
    bookings: Sequence[str],
    reason: str | None = None,
    idempotency: Idempotency | None = None,
    dry_run: bool = False,
) -> Answer:
    """Cancels up to fifty bookings in one transaction; one that cannot be says why and stops nothing."""
    return await ask(
        db,
        students,
        query="cancel_bookings",
        caller=caller,
        pair=pair,
        params={
            "bookings": list(bookings),
            "actor": caller.credential,
            "reason": reason,
            "dry_run": dry_run,
            **key_params(caller.credential, idempotency),
        },
    )
