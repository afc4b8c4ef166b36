"""The figures of the whole: how many contacts, credits, bookings and sessions, and what waits."""

from __future__ import annotations

from typing import Any

import msgspec

from tallybook.postgres.pool import Database


async def show_stats(db: Database) -> dict[str, Any]:
    """Counts by name; `credits` and `mock_exams` are lists, one object per type."""
    row = await db.fetch_one("show_stats")
    assert row is not None
    return msgspec.json.decode(row[0], type=dict[str, Any])
