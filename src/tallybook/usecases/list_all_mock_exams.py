"""Sessions as staff see them."""

from __future__ import annotations

from typing import Any

import msgspec

from tallybook.postgres.pool import Database


async def list_all_mock_exams(
    db: Database, *, mock_type: str | None, past: bool, limit: int
) -> list[dict[str, Any]]:
    """Sessions that are not archived, soonest first: full, closed and, if asked for, past ones as well."""
    rows = await db.fetch_all("list_all_mock_exams", {"mock_type": mock_type, "past": past, "limit": limit})
    return [msgspec.json.decode(row[0], type=dict[str, Any]) for row in rows]
