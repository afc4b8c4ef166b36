"""Many who want something at the same moment: started behind a barrier, counted by what they were told."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from support.factories import student
from tallybook.domain.errors import TallybookError
from tallybook.usecases.book_seat import book_seat
from tallybook.usecases.cancel_booking import cancel_booking
from tallybook.usecases.idempotency import Idempotency
from tallybook.usecases.move_booking import move_booking

# Everybody in a race is stored, so there is nobody to ask HubSpot for.
NOBODY_IS_MISSING = None


@dataclass(frozen=True)
class Result:
    """What one of the crowd was told: `created`, `ok`, `already`, or the code of the refusal."""

    word: str
    data: dict[str, Any] = field(default_factory=dict)
    replayed: bool = False


async def result_of(asking):
    """The answer or the refusal as a value; what is neither stays an exception."""
    try:
        answer = await asking
    except TallybookError as error:
        return Result(error.code, dict(error.details))
    return Result(answer.outcome, json.loads(answer.data), answer.replayed)


async def at_once(*askings):
    """All of them, released together; their results in order."""
    barrier = asyncio.Barrier(len(askings))

    async def start(asking):
        await barrier.wait()
        return await result_of(asking)

    return await asyncio.gather(*(start(each) for each in askings))


def tally(results):
    """How many were told what."""
    return Counter(each.word for each in results)


async def warm(db, connections):
    """Opens the pool's connections, so that a race starts on the database and not at its door."""
    await asyncio.gather(*(db.fetch_one("server_facts") for _ in range(connections)))


def _idempotency(route, key, body):
    return None if key is None else Idempotency(key, route, body)


def booking_by(db, contact, exam, *, key=None, body=b"1"):
    """A student books through the use case."""
    return book_seat(
        db,
        NOBODY_IS_MISSING,
        caller=student(contact),
        pair=None,
        mock_exam_id=str(exam.id),
        idempotency=_idempotency("POST /api/bookings/create", key, body),
    )


def cancelling_by(db, contact, booking, *, key=None, body=b"1"):
    """A student cancels; `booking` is the data of its answer."""
    return cancel_booking(
        db,
        NOBODY_IS_MISSING,
        caller=student(contact),
        pair=None,
        booking=booking["id"],
        idempotency=_idempotency("DELETE /api/bookings/{booking}", key, body),
    )


def moving_by(db, contact, booking, exam, *, key=None, body=b"1"):
    """A student moves a booking."""
    return move_booking(
        db,
        NOBODY_IS_MISSING,
        caller=student(contact),
        pair=None,
        booking=booking["id"],
        mock_exam_id=str(exam.id),
        idempotency=_idempotency("POST /api/bookings/{booking}/move", key, body),
    )


async def booked(db, contact, exam):
    """The data of a booking that must succeed."""
    return json.loads((await booking_by(db, contact, exam)).data)


async def rows(connection, statement, *values):
    """All rows of one statement."""
    cursor = await connection.execute(statement, values)
    return await cursor.fetchall()


async def live_bookings(connection, *, contact=None, exam=None):
    """The number of live bookings of a contact, of an exam, of both or of all."""
    found = await rows(
        connection,
        "select count(*) from tallybook.bookings where status <> 'Cancelled'"
        " and (%s::uuid is null or contact_id = %s) and (%s::uuid is null or mock_exam_id = %s)",
        *(2 * [contact and contact.id] + 2 * [exam and exam.id]),
    )
    return found[0][0]


async def ledger(connection, contact, credit_type="sj_credits"):
    """The signed changes of one balance in order, without the first, which the fixture granted."""
    found = await rows(
        connection,
        "select delta, reason from tallybook.credit_entries where (contact_id, credit_type) = (%s, %s)"
        " order by seq",
        contact.id,
        credit_type,
    )
    return found[1:]
