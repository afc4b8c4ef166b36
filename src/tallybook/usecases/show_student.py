"""Who is signed in."""

from __future__ import annotations

from tallybook.domain.callers import Caller
from tallybook.domain.contacts import Pair
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.ask import ask
from tallybook.usecases.find_student import Students


async def show_student(db: Database, students: Students, *, caller: Caller, pair: Pair | None) -> Answer:
    """The student's profile and credits."""
    return await ask(db, students, query="show_student", caller=caller, pair=pair, params={})
