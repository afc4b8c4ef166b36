"""How the mirror stands: how far each side is behind, what waits for a person, how many calls are in use."""

from __future__ import annotations

from typing import Any

import msgspec

from tallybook.postgres.pool import Database


async def show_sync_status(db: Database) -> dict[str, Any]:
    """`lanes`, `conflicts`, `budget`, `pulled`, `hold`, `portal` and `alerts` at one moment; ages in seconds.

    Raises DatabaseUnavailable.
    """
    row = await db.fetch_one("sync_overview")
    assert row is not None
    return msgspec.json.decode(row[0], type=dict[str, Any])
