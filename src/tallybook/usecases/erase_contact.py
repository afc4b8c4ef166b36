"""Forgets a person: what names them goes, every number stays and can still be proved."""

from __future__ import annotations

from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.grant_credits import find_contact
from tallybook.usecases.reasons import checked_reason


async def erase_contact(db: Database, *, contact: str, reason: str, actor: str) -> Answer:
    """{id, contacts, bookings, live_bookings}; `already` when it was done before. It cannot be undone.

    HubSpot is not told: whoever deletes a person there for privacy does so there. Raises ContactNotFound,
    AmbiguousContact, ValidationError.
    """
    contact_id = await find_contact(db, contact)
    return await db.answer(
        "erase_contact", {"contact_id": contact_id, "actor": actor, "reason": checked_reason(reason)}
    )
