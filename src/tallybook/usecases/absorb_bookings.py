"""Merges bookings as HubSpot shows them into ours; a status typed there is a command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.booking_fields import parse_booking
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import HISTORY_BATCH_SIZE
from tallybook.hubspot.histories import actor_of
from tallybook.hubspot.records import Record
from tallybook.usecases.absorb_answers import NEED, Taken, absorb_answers, pulled
from tallybook.usecases.mirror import Mirror, Pulled
from tallybook.usecases.pull_contacts import pull_contacts
from tallybook.usecases.pull_mock_exams import pull_mock_exams

_COMMANDS = ("is_active", "attendance")
# The ends, who commands, and once more for what changed in between.
_ROUNDS = 4


async def absorb_bookings(
    mirror: Mirror,
    records: Sequence[Record],
    *,
    importing: bool = False,
    kind: CallKind = CallKind.PULL,
    deadline_s: float = 30.0,
) -> Pulled:
    """Merges each field by itself. What has to be known first is read: a contact, a mock exam, who commands.

    The records carry their associations, which only matter for bookings that are not stored yet.
    """
    answers = {record.id: parse_booking(record, mirror.catalog).to_absorb() for record in records}
    done: dict[str, Taken] = {}
    waiting = list(answers)
    for _ in range(_ROUNDS):
        batch = [answers[hubspot_id] for hubspot_id in waiting]
        taken = await absorb_answers(mirror.db, "bookings", batch, importing=importing)
        done.update((each.hubspot_id, each) for each in taken)
        needs = {each.hubspot_id: each.need for each in taken if each.outcome == NEED}
        waiting = list(needs)
        if not waiting:
            break
        apart = {hubspot_id: need for hubspot_id, need in needs.items() if "editor" not in need}
        await _pull_ends(mirror, apart.values(), kind=kind, deadline_s=deadline_s)
        editors = await _editors(
            mirror, [each for each in waiting if each not in apart], kind=kind, deadline_s=deadline_s
        )
        for hubspot_id in waiting:
            # What is unknown after that, HubSpot does not know either.
            answers[hubspot_id] |= (
                {"looked_up": True}
                if hubspot_id in apart
                else {"edited_by": editors.get(hubspot_id, "hubspot")}
            )
    return pulled(done.values(), read=len(records))


async def _pull_ends(
    mirror: Mirror, needs: Iterable[dict[str, Any]], *, kind: CallKind, deadline_s: float
) -> None:
    """Also people without a student ID: whoever has a booking is somebody we have to know."""
    wanted = list(needs)
    contacts = sorted({need["contact"] for need in wanted} - {None})
    await pull_contacts(
        mirror, contacts, kind=kind, deadline_s=deadline_s, students_only=False, first_reason="import"
    )
    mock_exams = sorted({need["mock_exam"] for need in wanted} - {None})
    await pull_mock_exams(mirror, mock_exams, kind=kind, deadline_s=deadline_s)


async def _editors(
    mirror: Mirror, hubspot_ids: Sequence[str], *, kind: CallKind, deadline_s: float
) -> dict[str, str]:
    """Who last typed a status or an attendance on each of these, as an actor."""
    found: dict[str, str] = {}
    for start in range(0, len(hubspot_ids), HISTORY_BATCH_SIZE):
        records = await mirror.client.batch_read(
            mirror.crm_type(MirroredType.BOOKING),
            hubspot_ids[start : start + HISTORY_BATCH_SIZE],
            properties=_COMMANDS,
            with_history=_COMMANDS,
            kind=kind,
            deadline_s=deadline_s,
        )
        for record in records:
            shown = record.properties_with_history or {}
            if entries := [entry for name in _COMMANDS for entry in shown.get(name, ())[:1]]:
                found[record.id] = actor_of(max(entries, key=lambda entry: entry.timestamp))
    return found
