"""Lists what could not be merged and waits for a person's decision."""

from __future__ import annotations

from typing import Any

import msgspec

from tallybook.domain.mirror import MirroredType
from tallybook.postgres.pool import Database


async def list_conflicts(
    db: Database,
    *,
    object_type: MirroredType | None = None,
    kind: str | None = None,
    with_resolved: bool = False,
    page: int = 1,
    limit: int = 50,
) -> dict[str, Any]:
    """One page of `conflicts`, the oldest first, with `page` and the `total` of all pages."""
    row = await db.fetch_one(
        "list_conflicts",
        {
            "object_type": object_type and object_type.value,
            "kind": kind,
            "with_resolved": with_resolved,
            "page": page,
            "limit": limit,
        },
    )
    assert row is not None
    return msgspec.json.decode(row[0], type=dict[str, Any])
