"""Asks for records of HubSpot's to be read again, by whoever pulls next."""

from __future__ import annotations

from collections.abc import Sequence

from tallybook.domain.mirror import MirroredType
from tallybook.postgres.pool import Database


async def ask_to_read(
    db: Database, mirrored: MirroredType, hubspot_ids: Sequence[str], *, after_s: float = 0.0
) -> None:
    """Leaves a note for each record; asking twice is asking once."""
    await db.fetch_all(
        "ask_to_read",
        {"object_type": mirrored.value, "hubspot_ids": list(hubspot_ids), "after_s": after_s},
    )
