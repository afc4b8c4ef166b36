"""What a contact has and how it came about, for other programs."""

from __future__ import annotations

from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.grant_credits import find_contact


async def show_contact_credits(db: Database, *, contact: str) -> Answer:
    """{balances, held, holds, source, as_of}. Raises ContactNotFound, AmbiguousContact."""
    return await db.answer("show_contact_credits", {"contact_id": await find_contact(db, contact)})


async def list_entries(db: Database, *, contact: str, page: int, per_page: int, action: str | None) -> Answer:
    """A page of the ledger, newest first. `action` is a metered action or a reason such as `booking`.

    Raises ContactNotFound, AmbiguousContact.
    """
    params = {
        "contact_id": await find_contact(db, contact),
        "page": page,
        "per_page": per_page,
        "action": action,
    }
    return await db.answer("list_entries", params)


async def list_costs(db: Database) -> Answer:
    """What each action costs and which packs there are, for price tags."""
    return await db.answer("list_costs", {})
