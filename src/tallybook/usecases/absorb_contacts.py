"""Merges contacts as HubSpot shows them into ours: the only door for remote numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
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
            "contacts": msgspec.json.encode([_as_row(each) for each in contacts]).decode(),
            "reason": first_reason,
        },
    )
    return {hubspot_id: contact_id for hubspot_id, contact_id, _ in rows if contact_id is not None}


def _as_row(contact: RemoteContact) -> dict[str, Any]:
    row = {
        "hubspot_id": contact.hubspot_id,
        "updated_at": contact.updated_at,
        "stamp": contact.stamp,
        "archived": contact.archived,
        "balances": contact.balances,
        "unreadable": contact.unreadable,
    }
    # A field that the answer did not contain stays out, and is not written.
    for name in ("email", "student_id", "firstname", "lastname", "ndecc_exam_on"):
        if name in contact.present:
            row[name] = getattr(contact, name)
    return row
