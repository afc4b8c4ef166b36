"""Adds a process's calls to HubSpot to those of all processes, so that one place knows them all."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallybook.postgres.pool import Database


async def record_crm_calls(db: Database, counts: Mapping[str, tuple[int, int]]) -> None:
    """`counts`: {kind: (calls, those answered with 429)} since the last time. Raises DatabaseUnavailable."""
    if counts:
        await db.fetch_all("count_crm_calls", {"counts": msgspec.json.encode(counts).decode()})
