"""Records that scheduled sessions have opened, so that HubSpot is told; booking has known all along."""

from __future__ import annotations

from tallybook.postgres.pool import Database


async def open_scheduled_exams(db: Database) -> int:
    """Opens up to a hundred sessions in one transaction and gives how many; 0 when none is due."""
    row = await db.fetch_one("open_scheduled_exams")
    assert row is not None
    return int(row[0])
