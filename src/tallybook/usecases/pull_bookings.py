"""Reads bookings from HubSpot by their ids and merges what it says."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.association_reads import read_associations
from tallybook.hubspot.booking_fields import BOOKING_PROPERTIES, JOINED_BY_TEXT
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import BATCH_SIZE
from tallybook.hubspot.records import AssociatedId, AssociatedIds, Record
from tallybook.usecases.absorb_answers import absorb_answers, gone, together
from tallybook.usecases.absorb_bookings import absorb_bookings
from tallybook.usecases.mirror import Mirror, Pulled

_ENDS = (MirroredType.CONTACT, MirroredType.MOCK_EXAM)


async def pull_bookings(
    mirror: Mirror, hubspot_ids: Sequence[str], *, kind: CallKind, deadline_s: float = 30.0
) -> Pulled:
    """Reads and absorbs them, a hundred at a time; live ones HubSpot no longer has wait for a person.

    Raises CrmBusy, CrmUnavailable, SetupError, DatabaseUnavailable; what was absorbed until then stays.
    """
    wanted = list(dict.fromkeys(hubspot_ids))
    parts: list[Pulled] = []
    for start in range(0, len(wanted), BATCH_SIZE):
        batch = wanted[start : start + BATCH_SIZE]
        records = await mirror.client.batch_read(
            mirror.crm_type(MirroredType.BOOKING),
            batch,
            properties=BOOKING_PROPERTIES,
            kind=kind,
            deadline_s=deadline_s,
        )
        records = await _with_ends(mirror, records, kind=kind, deadline_s=deadline_s)
        parts.append(await absorb_bookings(mirror, records, kind=kind, deadline_s=deadline_s))
        missing = sorted(set(batch) - {record.id for record in records})
        await absorb_answers(mirror.db, "bookings", [gone(hubspot_id) for hubspot_id in missing])
        parts.append(Pulled(missing=tuple(missing)))
    return together(parts)


async def _with_ends(
    mirror: Mirror, records: Sequence[Record], *, kind: CallKind, deadline_s: float
) -> tuple[Record, ...]:
    """The records with their contact and mock exam, where these are not known already.

    Whose booking it is never changes here; asking each time would double the calls of every pull.
    """
    rows = await mirror.db.fetch_all("joined_bookings", {"hubspot_ids": [record.id for record in records]})
    known = {hubspot_id for (hubspot_id,) in rows}
    asked = [record.id for record in records if record.id not in known]
    ends = {
        end: await read_associations(
            mirror.client,
            mirror.crm_type(MirroredType.BOOKING),
            asked,
            mirror.crm_type(end),
            kind=kind,
            deadline_s=deadline_s,
        )
        for end in _ENDS
        if asked
    }
    return tuple(
        _without_texts(record)
        if record.id in known
        else msgspec.structs.replace(
            record,
            associations={
                mirror.crm_type(end): AssociatedIds(tuple(map(AssociatedId, found[record.id])))
                for end, found in ends.items()
            },
        )
        for record in records
    )


def _without_texts(record: Record) -> Record:
    """Without the texts the old system kept of both ends: they may be older than the associations."""
    properties = {name: text for name, text in record.properties.items() if name not in JOINED_BY_TEXT}
    return msgspec.structs.replace(record, properties=properties)
