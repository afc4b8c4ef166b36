"""Learns by which id HubSpot names what we write, so that webhooks about it can be dropped."""

from __future__ import annotations

import msgspec

from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.connection import CONTACTS
from tallybook.hubspot.fields import STAMP_PROPERTY
from tallybook.usecases.mirror import Mirror

_DEADLINE_S = 20.0


async def learn_own_source(mirror: Mirror) -> str | None:
    """The id, as the history of a stamp of ours shows it; None while there is no such stamp.

    Raises CrmBusy, CrmUnavailable, SetupError, DatabaseUnavailable.
    """
    row = await mirror.db.fetch_one("stamped_contact")
    if row is None:
        return None
    hubspot_id, stamp = row
    records = await mirror.client.batch_read(
        CONTACTS,
        [hubspot_id],
        properties=[STAMP_PROPERTY],
        with_history=[STAMP_PROPERTY],
        kind=CallKind.PULL,
        deadline_s=_DEADLINE_S,
    )
    for record in records:
        for entry in (record.properties_with_history or {}).get(STAMP_PROPERTY, ()):
            if entry.value == stamp and entry.source_type == "INTEGRATION" and entry.source_id:
                value = msgspec.json.encode({"source_id": entry.source_id}).decode()
                await mirror.db.fetch_all("save_sync_state", {"name": "own_source", "value": value})
                return entry.source_id
    return None
