"""Moves a booking to another session of the same type: seat for seat, credit untouched."""

from __future__ import annotations

from tallybook.domain.callers import Caller
from tallybook.domain.contacts import Pair
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.ask import ask
from tallybook.usecases.find_student import Students
from tallybook.usecases.idempotency import Idempotency, key_params


async def move_booking(
    db: Database,
    students: Students,
    *,
    caller: Caller,
    pair: Pair | None,
    booking: str,
    mock_exam_id: str,
    dry_run: bool = False,
    idempotency: Idempotency | None = None,
) -> Answer:
    """The moved booking; every rule about the new session is checked as if it were booked.

    Raises BookingNotFound, BookingNotLive, MockTypeMismatch, CancellationClosed, and as `book_seat` but for
    credits.
    """
    return await ask(
        db,
        students,
        query="move_booking",
        caller=caller,
        pair=pair,
        params={
            "booking": booking,
            "mock_exam": mock_exam_id,
            "as_staff": False,
            "actor": caller.credential,
            "dry_run": dry_run,
            **key_params(caller.credential, idempotency),
        },
    )


async def move_as_staff(
    db: Database, *, booking: str, mock_exam_id: str, actor: str, dry_run: bool = False
) -> Answer:
    """Moves any live booking, also a completed one, whatever its closing time. Raises as `move_booking`."""
    return await db.answer(
        "move_booking",
        {
            "contact_id": None,
            "epoch": None,
            "student_id": None,
            "email": None,
            "limit_key": None,
            "limit_per_min": None,
            "booking": booking,
            "mock_exam": mock_exam_id,
            "as_staff": True,
            "actor": actor,
            "dry_run": dry_run,
            **key_params(actor, None),
        },
    )
