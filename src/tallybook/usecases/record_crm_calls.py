"""Counts a process's calls to HubSpot, and adds them to those of all, so that one place knows them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from tallybook.domain.errors import TallybookError
from tallybook.hubspot.budget import CallKind, CallMade
from tallybook.postgres.pool import Database

_TELL_EVERY_S = 5.0


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

    @asynccontextmanager
    async def telling(self, db: Database) -> AsyncIterator[None]:
        """Meanwhile, and once more at the end, calls are told; what cannot be told now is told later."""

        async def tell_for_ever() -> None:
            while True:
                await asyncio.sleep(_TELL_EVERY_S)
                with suppress(TallybookError):
                    await self.tell(db)

        task = asyncio.create_task(tell_for_ever())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with suppress(TallybookError):
                await self.tell(db)


async def record_crm_calls(db: Database, counts: Mapping[str, tuple[int, int]]) -> None:
    """`counts`: {kind: (calls, those answered with 429)} since the last time. Raises DatabaseUnavailable."""
    if counts:
        await db.fetch_all("count_crm_calls", {"counts": msgspec.json.encode(counts).decode()})
