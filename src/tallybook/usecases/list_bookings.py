"""A student's bookings: one, or a page of them."""

from __future__ import annotations

from typing import Literal

from tallybook.domain.callers import Caller
from tallybook.domain.contacts import Pair
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.ask import ask
from tallybook.usecases.find_student import Students


async def list_bookings(
    db: Database,
    students: Students,
    *,
    caller: Caller,
    pair: Pair | None,
    filter: Literal["all", "upcoming", "past"],  # noqa: A002 - the word of the address
    page: int,
    limit: int,
) -> Answer:
    """A page of bookings, its pagination, and the credits left."""
    return await ask(
        db,
        students,
        query="list_bookings",
        caller=caller,
        pair=pair,
        params={"filter": filter, "page": page, "limit": limit},
    )
