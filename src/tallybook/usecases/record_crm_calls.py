"""Counts a process's calls to HubSpot, and adds them to those of all, so that one place knows them all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from tallybook.hubspot.budget import CallKind, CallMade
from tallybook.postgres.pool import Database


@dataclass(slots=True)
class _KindCounts:
    calls: int = 0
    throttled: int = 0


@dataclass(slots=True)
class CrmCallCounts:
    """How often HubSpot was called, by kind, since the start of this process; an observer of the client."""

    by_kind: dict[str, _KindCounts] = field(
        default_factory=lambda: {kind.value: _KindCounts() for kind in CallKind}
    )
    daily_remaining: int | None = None
    _told: dict[str, tuple[int, int]] = field(default_factory=dict)
    _telling: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __call__(self, call: CallMade) -> None:
        """Counts one call."""
        counts = self.by_kind[call.kind.value]
        counts.calls += 1
        counts.throttled += call.status == 429
        if call.daily_remaining is not None:
            self.daily_remaining = call.daily_remaining

    async def tell(self, db: Database) -> None:
        """Adds the calls since the last time to those of all processes. Raises DatabaseUnavailable."""
        async with self._telling:
            now = {kind: (counts.calls, counts.throttled) for kind, counts in self.by_kind.items()}
            told = {kind: self._told.get(kind, (0, 0)) for kind in now}
            news = {
                kind: (calls - told[kind][0], throttled - told[kind][1])
                for kind, (calls, throttled) in now.items()
                if calls > told[kind][0]
            }
            await record_crm_calls(db, news)
            self._told = now


async def record_crm_calls(db: Database, counts: Mapping[str, tuple[int, int]]) -> None:
    """`counts`: {kind: (calls, those answered with 429)} since the last time. Raises DatabaseUnavailable."""
    if counts:
        await db.fetch_all("count_crm_calls", {"counts": msgspec.json.encode(counts).decode()})
