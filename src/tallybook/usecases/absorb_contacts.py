"""Merges contacts as HubSpot shows them into ours: the only door for remote numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec

from tallybook.domain.mirror import Outcome
from tallybook.hubspot.fields import RemoteContact
from tallybook.postgres.pool import Database


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What became of one answer, and whose it is; `contact_id` is None when the contact is not stored."""

    contact_id: UUID | None
    outcome: Outcome


async def absorb_contacts(
    db: Database, contacts: Sequence[RemoteContact], *, first_reason: str, students_only: bool = False
) -> dict[str, Absorbed]:
    """Merges up to a hundred contacts in one transaction; says by HubSpot id what became of each.

    `first_reason` is the ledger's word for balances met for the first time: `import` or `crm_link`.
    `students_only`: people without a student ID are merged only when they are stored already.
    """
    answers = [each.to_absorb(store=not students_only or each.student_id is not None) for each in contacts]
    rows = await db.fetch_all(
        "absorb_contacts", {"contacts": msgspec.json.encode(answers).decode(), "reason": first_reason}
    )
    return {hubspot_id: Absorbed(contact_id, Outcome(outcome)) for hubspot_id, contact_id, outcome in rows}
