"""Can this student book this type? From PostgreSQL, from HubSpot when PostgreSQL cannot say; no guess."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from tallybook.domain.callers import Caller, CallerKind
from tallybook.domain.catalog import Catalog, MockType
from tallybook.domain.contacts import Pair
from tallybook.domain.credits import breakdown
from tallybook.domain.errors import CrmBusy, DatabaseUnavailable, Forbidden, InvalidMockType
from tallybook.hubspot.fields import RemoteContact
from tallybook.postgres.answers import Answer, StudentNotStored
from tallybook.postgres.pool import Database
from tallybook.usecases.ask import fetch_student, who
from tallybook.usecases.find_student import Students


async def check_credits(
    db: Database, students: Students, *, caller: Caller, pair: Pair | None, mock_type: str
) -> Answer:
    """The student's credits for one mock type, whether or not they suffice.

    Raises InvalidMockType, StudentNotFound, CrmBusy, CrmUnavailable, the refusals of the caller; and
    DatabaseUnavailable only when neither PostgreSQL nor HubSpot can be asked for this caller.
    """
    identified = True
    params = {**who(caller, pair), "mock_type": mock_type, "source": "database"}
    try:
        return await db.answer("check_credits", params)
    except StudentNotStored as missing:
        hubspot_id = missing.details.get("hubspot_id")
    except DatabaseUnavailable:
        if caller.contact_id is not None and caller.hubspot_id is None:
            # Only the database knows whom this token stands for; a pair beside it may be anybody's.
            raise
        hubspot_id, identified = caller.hubspot_id, False
    known = _mock_type(students.catalog, mock_type)
    if identified:
        found = await fetch_student(db, students, caller=caller, pair=pair, hubspot_id=hubspot_id)
    else:
        found = await students.fetch(
            pair=pair, hubspot_id=hubspot_id, signed=caller.kind is not CallerKind.PAIR
        )
    if not identified and hubspot_id is not None and pair is not None and pair != _pair_of(found.contact):
        raise Forbidden
    if found.stored:
        try:
            answer = await db.answer("check_credits", params | {"source": "hubspot"})
        except StudentNotStored as error:
            raise CrmBusy from error
        except DatabaseUnavailable:
            pass
        else:
            return replace(answer, lookup="miss")
    # Not stored: the answer still stands, without an id to hold on to.
    shown = _from_remote(found.contact, known, students.catalog)
    return Answer(msgspec.json.encode(shown), lookup="miss")


def _pair_of(contact: RemoteContact) -> Pair | None:
    return Pair(contact.student_id, contact.email) if contact.student_id and contact.email else None


def _mock_type(catalog: Catalog, name: str) -> MockType:
    for each in catalog.mock_types:
        if each.name == name:
            return each
    raise InvalidMockType(field="mock_type", allowed=sorted(each.name for each in catalog.mock_types))


def _from_remote(contact: RemoteContact, mock_type: MockType, catalog: Catalog) -> dict[str, Any]:
    unreadable = [name for name in mock_type.pays_with if name in contact.unreadable]
    not_mirrored = [each.name for each in catalog.credit_types if each.hubspot_property is None]
    if unreadable or any(name in not_mirrored for name in mock_type.pays_with):
        # A number HubSpot cannot tell is not a zero.
        raise CrmBusy
    parts = breakdown(mock_type.pays_with, contact.balances)
    available = parts.specific_credits + parts.shared_credits
    name = " ".join(part for part in (contact.firstname, contact.lastname) if part)
    shown: dict[str, Any] = {
        "eligible": available > 0,
        "available_credits": available,
        "credit_breakdown": {
            "specific_credits": parts.specific_credits,
            "shared_credits": parts.shared_credits,
        },
        "contact_id": contact.hubspot_id,
        "id": None,
        "student_name": name or None,
        "ndecc_exam_date": contact.ndecc_exam_on,
        "source": "hubspot",
        "as_of": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if available <= 0:
        shown["error_message"] = f"You have no credits for {mock_type.name}."
    return shown
