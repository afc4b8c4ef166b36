"""Merges bookings as HubSpot shows them into ours; a status typed there is a command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tallybook.hubspot.booking_fields import parse_booking
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.records import Record
from tallybook.usecases.absorb_answers import NEED, Taken, absorb_answers, pulled
from tallybook.usecases.mirror import Mirror, Pulled
from tallybook.usecases.pull_contacts import pull_contacts
from tallybook.usecases.pull_mock_exams import pull_mock_exams


async def absorb_bookings(
    mirror: Mirror,
    records: Sequence[Record],
    *,
    importing: bool = False,
    kind: CallKind = CallKind.PULL,
    deadline_s: float = 30.0,
) -> Pulled:
    """Merges each field by itself. A contact or mock exam that is not stored yet is read first.

    The records carry their associations, which only matter for bookings that are not stored yet.
    """
    answers = {record.id: parse_booking(record, mirror.catalog).to_absorb() for record in records}
    done: dict[str, Taken] = {}

    async def absorb(batch: Iterable[dict[str, Any]]) -> list[Taken]:
        taken = await absorb_answers(mirror.db, "bookings", list(batch), importing=importing)
        done.update((each.hubspot_id, each) for each in taken)
        return [each for each in taken if each.outcome == NEED]

    if waiting := await absorb(answers.values()):
        await _pull_ends(mirror, waiting, kind=kind, deadline_s=deadline_s)
        # What is unknown still, HubSpot does not have either.
        await absorb(answers[each.hubspot_id] | {"looked_up": True} for each in waiting)
    return pulled(done.values(), read=len(records))


async def _pull_ends(mirror: Mirror, waiting: Sequence[Taken], *, kind: CallKind, deadline_s: float) -> None:
    """Also people without a student ID: whoever has a booking is somebody we have to know."""
    contacts = sorted({each.need["contact"] for each in waiting} - {None})
    await pull_contacts(
        mirror, contacts, kind=kind, deadline_s=deadline_s, students_only=False, first_reason="import"
    )
    mock_exams = sorted({each.need["mock_exam"] for each in waiting} - {None})
    await pull_mock_exams(mirror, mock_exams, kind=kind, deadline_s=deadline_s)
