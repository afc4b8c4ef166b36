"""One booking of one student, by any of its ids."""

from __future__ import annotations

from tallybook.domain.callers import Caller
from tallybook.domain.contacts import Pair
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.ask import ask
from tallybook.usecases.find_student import Students


async def show_booking(
    db: Database, students: Students, *, caller: Caller, pair: Pair | None, booking: str
) -> Answer:
    """The booking with its session. Raises BookingNotFound, also for another student's."""
    return await ask(
        db, students, query="show_booking", caller=caller, pair=pair, params={"booking": booking}
    )
