"""Books a seat and spends a credit: one decision, one commit, one round trip."""

from __future__ import annotations

from tallybook.domain.callers import Caller
from tallybook.domain.contacts import Pair
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.ask import ask
from tallybook.usecases.find_student import Students
from tallybook.usecases.idempotency import Idempotency, key_params


async def book_seat(
    db: Database,
    students: Students,
    *,
    caller: Caller,
    pair: Pair | None,
    mock_exam_id: str,
    attending_location: str | None = None,
    dominant_hand: bool | None = None,
    dry_run: bool = False,
    idempotency: Idempotency | None = None,
) -> Answer:
    """The booking; `outcome` is `created`, or `already` for a double click.

    `dominant_hand` is True for right. Raises, the first that holds: ExamNotFound, ExamNotActive, ExamInPast,
    BookingClosed, DuplicateBooking, TimeConflict, PrerequisiteNotMet, InsufficientCredits, ExamFull; and
    LockTimeout, IdempotencyKeyReused, IdempotencyInProgress, StudentNotFound, CrmBusy, DatabaseUnavailable.
    """
    return await ask(
        db,
        students,
        query="book_seat",
        caller=caller,
        pair=pair,
        params={
            "mock_exam": mock_exam_id,
            "attending_location": attending_location,
            "dominant_hand": dominant_hand,
            "actor": caller.credential,
            "override_reason": None,
            "dry_run": dry_run,
            **key_params(caller.credential, idempotency),
        },
    )


async def book_with_override(
    db: Database,
    *,
    contact_id: str,
    mock_exam_id: str,
    actor: str,
    reason: str,
    dry_run: bool = False,
) -> Answer:
    """Books a seat as staff: waives credit, closing time and prerequisites; never capacity, day or overlap.

    Raises as `book_seat`, and ContactNotFound.
    """
    return await db.answer(
        "book_seat",
        {
            "contact_id": contact_id,
            "epoch": None,
            "student_id": None,
            "email": None,
            "limit_key": None,
            "limit_per_min": None,
            "mock_exam": mock_exam_id,
            "attending_location": None,
            "dominant_hand": None,
            "actor": actor,
            "override_reason": reason,
            "dry_run": dry_run,
            **key_params(actor, None),
        },
    )
