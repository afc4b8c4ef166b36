"""Stores the date of the student's real examination."""

from __future__ import annotations

from datetime import date

from tallybook.domain.callers import Caller
from tallybook.domain.contacts import Pair
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.ask import ask
from tallybook.usecases.find_student import Students


async def set_ndecc_date(
    db: Database,
    students: Students,
    *,
    caller: Caller,
    pair: Pair | None,
    ndecc_exam_date: date,
    time_zone: str,
) -> Answer:
    """Stores the date, which must not be past in `time_zone`. Raises ValidationError."""
    return await ask(
        db,
        students,
        query="set_ndecc_date",
        caller=caller,
        pair=pair,
        params={"on": ndecc_exam_date, "actor": caller.credential, "time_zone": time_zone},
    )
