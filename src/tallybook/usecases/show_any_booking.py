"""One booking as staff see it, by any of its ids."""

from __future__ import annotations

from typing import Any

import msgspec

from tallybook.domain.errors import BookingNotFound
from tallybook.postgres.pool import Database


async def show_any_booking(db: Database, *, booking: str) -> dict[str, Any]:
    """The booking with its session, contact and entries. Raises BookingNotFound."""
    row = await db.fetch_one("show_any_booking", {"booking": booking})
    if row is None:
        raise BookingNotFound
    return msgspec.json.decode(row[0], type=dict[str, Any])
