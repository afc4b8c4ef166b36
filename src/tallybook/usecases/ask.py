"""The beats every request of a student shares: name the student, ask the database, ask HubSpot if it must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tallybook.domain.callers import Caller, CallerKind
from tallybook.domain.contacts import Pair
from tallybook.domain.errors import (
    CrmBusy,
    DatabaseUnavailable,
    RateLimited,
    StudentNotFound,
    ValidationError,
)
from tallybook.postgres.answers import Answer, StudentNotStored
from tallybook.postgres.pool import Database
from tallybook.usecases.find_student import Found, Students

_GUESSES_PER_MIN = 10


def who(caller: Caller, pair: Pair | None) -> dict[str, Any]:
    """The parameters that say who is asking and what the call counts against.

    Only a student's token names a contact by itself; everybody else has to name the pair.
    """
    if caller.contact_id is None and pair is None:
        raise ValidationError(
            "student_id and email are needed here.", field="student_id", problem="is missing"
        )
    return {
        "contact_id": caller.contact_id,
        "epoch": caller.epoch,
        "student_id": pair.student_id if pair else None,
        "email": pair.email if pair else None,
        **limit(caller),
    }


def limit(caller: Caller) -> dict[str, Any]:
    """What the call counts against; the database counts, so that the limit holds across processes."""
    return {"limit_key": caller.limit_key, "limit_per_min": caller.limit_per_min}


async def fetch_student(
    db: Database, students: Students, *, caller: Caller, pair: Pair | None, hubspot_id: str | None
) -> Found:
    """The student as HubSpot shows it. Without a signed credential a wrong pair is a guess: ten a minute.

    Raises StudentNotFound, RateLimited, CrmBusy, CrmUnavailable.
    """
    if caller.kind is not CallerKind.PAIR:
        return await students.fetch(pair=pair, hubspot_id=hubspot_id, signed=True)
    address = {"address": caller.credential.removeprefix("pair:")}
    row = await db.fetch_one("recent_login_failures", address)
    if row is not None and row[0] >= _GUESSES_PER_MIN:
        raise RateLimited
    try:
        return await students.fetch(pair=pair, hubspot_id=hubspot_id, signed=False)
    except StudentNotFound:
        await db.fetch_all("count_login_failure", address)
        raise


async def ask(
    db: Database,
    students: Students,
    *,
    query: str,
    caller: Caller,
    pair: Pair | None,
    params: Mapping[str, Any],
    after_miss: Mapping[str, Any] | None = None,
) -> Answer:
    """Asks a deciding function about a student; one not stored yet is fetched from HubSpot first.

    `after_miss` replaces parameters when the answer rests on what HubSpot just said. Raises what the function
    refuses, StudentNotFound, CrmBusy, and DatabaseUnavailable when the fetched student could not be stored.
    """
    everything = {**who(caller, pair), **params}
    try:
        return await db.answer(query, everything)
    except StudentNotStored as missing:
        hubspot_id = missing.details.get("hubspot_id")
    found = await fetch_student(db, students, caller=caller, pair=pair, hubspot_id=hubspot_id)
    if not found.stored:
        raise DatabaseUnavailable
    try:
        answer = await db.answer(query, {**everything, **(after_miss or {})})
    except StudentNotStored as error:
        # HubSpot's record came, yet the pair or a balance in it is not what was asked for.
        raise (StudentNotFound() if pair is not None and hubspot_id is None else CrmBusy()) from error
    return replace(answer, lookup="miss")
