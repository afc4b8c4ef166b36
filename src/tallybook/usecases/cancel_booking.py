"""Cancels one booking: whoever flips it gets the refund, everyone after the same answer without effect."""

from __future__ import annotations

from typing import Any

from tallybook.domain.callers import Caller
from tallybook.domain.contacts import Pair
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.ask import ask
from tallybook.usecases.find_student import Students
from tallybook.usecases.idempotency import Idempotency, key_params


async def cancel_booking(
    db: Database,
    students: Students,
    *,
    caller: Caller,
    pair: Pair | None,
    booking: str,
    reason: str | None = None,
    idempotency: Idempotency | None = None,
    dry_run: bool = False,
) -> Answer:
    """Cancels a student's own booking, named by any of its ids; `outcome` is `already` when it was cancelled.

    Raises BookingNotFound (also another student's), BookingNotLive, CancellationClosed, and as `book_seat`.
    """
    return await ask(
        db,
        students,
        query="cancel_booking",
        caller=caller,
        pair=pair,
        params={
            "booking": booking,
            "as_staff": False,
            "actor": caller.credential,
            "reason": reason,
            "refund": None,
            "dry_run": dry_run,
            **key_params(caller.credential, idempotency),
        },
    )


async def preview_cancellation(
    db: Database, students: Students, *, caller: Caller, pair: Pair | None, booking: str
) -> Answer:
    """What cancelling now would do: the same code, rolled back before it writes."""
    return await cancel_booking(db, students, caller=caller, pair=pair, booking=booking, dry_run=True)


async def cancel_as_staff(
    db: Database, *, booking: str, actor: str, reason: str | None, refund: bool | None, dry_run: bool = False
) -> Answer:
    """Cancels any live booking, also a completed one; `refund` None leaves it to the catalog's rule."""
    params: dict[str, Any] = {
        "contact_id": None,
        "epoch": None,
        "student_id": None,
        "email": None,
        "limit_key": None,
        "limit_per_min": None,
        "booking": booking,
        "as_staff": True,
        "actor": actor,
        "reason": reason,
        "refund": refund,
        "dry_run": dry_run,
        **key_params(actor, None),
    }
    return await db.answer("cancel_booking", params)
