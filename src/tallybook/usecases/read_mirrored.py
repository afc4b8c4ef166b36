"""Reads mirrored records from HubSpot as the texts our tables are compared with; stores nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.association_reads import read_associations
from tallybook.hubspot.booking_fields import BOOKING_PROPERTIES, parse_booking
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.fields import contact_properties, parse_contact
from tallybook.hubspot.records import Record
from tallybook.hubspot.session_fields import MOCK_EXAM_PROPERTIES, parse_mock_exam
from tallybook.usecases.mirror import Mirror

_ENDS = (MirroredType.CONTACT, MirroredType.MOCK_EXAM)


@dataclass(frozen=True, slots=True)
class Shown:
    """A record as HubSpot shows it: its texts by property, and what it is associated with by type."""

    texts: Mapping[str, str | None]
    tallybook_id: str | None
    links: Mapping[str, Sequence[str]] = field(default_factory=dict)


async def read_mirrored(
    mirror: Mirror, of: MirroredType, hubspot_ids: Sequence[str], *, kind: CallKind, deadline_s: float
) -> dict[str, Shown]:
    """Those of at most a hundred records that exist and are not archived, by their ids.

    Raises CrmBusy, CrmUnavailable, SetupError.
    """
    properties = {
        MirroredType.CONTACT: contact_properties(mirror.catalog),
        MirroredType.MOCK_EXAM: MOCK_EXAM_PROPERTIES,
        MirroredType.BOOKING: BOOKING_PROPERTIES,
    }[of]
    records = await mirror.client.batch_read(
        mirror.crm_type(of), hubspot_ids, properties=properties, kind=kind, deadline_s=deadline_s
    )
    found = [record for record in records if not record.archived]
    if of is MirroredType.CONTACT:
        return {record.id: _contact(mirror, record) for record in found}
    if of is MirroredType.MOCK_EXAM:
        return {record.id: _mock_exam(mirror, record) for record in found}
    ids = [record.id for record in found]
    links = {
        end.value: await read_associations(
            mirror.client,
            mirror.crm_type(of),
            ids,
            mirror.crm_type(end),
            kind=kind,
            deadline_s=deadline_s,
        )
        for end in _ENDS
        if ids
    }
    return {record.id: _booking(mirror, record, links) for record in found}


def _contact(mirror: Mirror, record: Record) -> Shown:
    contact = parse_contact(record, mirror.catalog)
    texts: dict[str, str | None] = {**contact.to_absorb()["texts"], **contact.unreadable_texts}
    for credit_type in mirror.catalog.mirrored_credit_types:
        name = credit_type.hubspot_property
        if name is not None and name in record.properties:
            number = contact.balances.get(credit_type.name)
            texts[name] = contact.unreadable.get(credit_type.name) if number is None else str(number)
    return Shown(texts, contact.tallybook_id)


def _mock_exam(mirror: Mirror, record: Record) -> Shown:
    exam = parse_mock_exam(record, mirror.catalog, default_zone=mirror.time_zone)
    return Shown(exam.texts, exam.tallybook_id)


def _booking(mirror: Mirror, record: Record, links: Mapping[str, Mapping[str, Sequence[str]]]) -> Shown:
    booking = parse_booking(record, mirror.catalog)
    ends = {end: found.get(record.id, ()) for end, found in links.items()}
    return Shown(booking.texts, booking.tallybook_id, ends)
