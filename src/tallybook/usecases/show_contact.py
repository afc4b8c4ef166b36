"""One contact as staff see it."""

from __future__ import annotations

from typing import Any

import msgspec

from tallybook.postgres.pool import Database
from tallybook.usecases.grant_credits import find_contact


async def show_contact(db: Database, *, contact: str) -> dict[str, Any]:
    """Who it is, all balances and bookings, the newest entries. Raises ContactNotFound, AmbiguousContact."""
    row = await db.fetch_one("show_contact", {"contact_id": await find_contact(db, contact)})
    assert row is not None
    return msgspec.json.decode(row[0], type=dict[str, Any])
