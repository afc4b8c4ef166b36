"""Merges contacts as HubSpot shows them into ours: the only door for remote numbers."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from tallybook.hubspot.fields import RemoteContact
from tallybook.postgres.pool import Database


async def absorb_contacts(
    db: Database, contacts: Sequence[RemoteContact], *, first_reason: str
) -> dict[str, UUID]:
    """Merges up to a hundred contacts in one transaction; gives our ids of those stored, by HubSpot id.

    `first_reason` is the ledger's word for balances met for the first time: `import` or `crm_link`.
    """
    rows = await db.fetch_all(
        "absorb_contacts",
        {
            "contacts": msgspec.json.encode([each.to_absorb() for each in contacts]).decode(),
            "reason": first_reason,
        },
    )
    return {hubspot_id: contact_id for hubspot_id, contact_id, _ in rows if contact_id is not None}
