"""The call budget of HubSpot that all processes share, kept in PostgreSQL by the database's clock.

A call's slot is in use from sending until one window after its answer (or its timeout), so no rolling window
can hold more calls than the limit and a 429 of our own making cannot happen (mirror.md 2).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from tallybook.domain.call_limits import CallLimit, CallSlot
from tallybook.domain.errors import CrmBusy, DatabaseUnavailable
from tallybook.postgres.pool import Database

# Another process may free a slot earlier than its timeout says, so nobody sleeps longer than this.
_LOOK_AGAIN_S = 0.1
# The day may get more calls before its end: somebody pays for more, or another program stops.
_LONGEST_WAIT_S = 900


class PostgresCallBudget:
    """Slots for calls, taken and freed in PostgreSQL."""

    def __init__(
        self,
        db: Database,
        *,
        limits: Sequence[CallLimit],
        search_limits: Sequence[CallLimit],
        shares: dict[str, float],
        search_shares: dict[str, float],
        call_timeout_s: float,
    ) -> None:
        self._db = db
        self._limits = {False: tuple(limits), True: tuple(search_limits)}
        self._shares = {False: shares, True: search_shares}
        self._call_timeout_s = call_timeout_s
        self._freeing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def slot(self, kind: str, *, search: bool = False, wait_s: float = 60.0) -> AsyncIterator[CallSlot]:
        """Holds one call's slot. Raises CrmBusy when none is free within `wait_s` seconds.

        What the call says of the day's calls is kept: of the last tenth only misses get slots.
        """
        taken = await self._take(kind, search=search, wait_s=wait_s)
        slot = CallSlot()
        try:
            yield slot
        finally:
            # The caller has its answer; telling the database so must not make it wait.
            task = asyncio.create_task(self._free(taken, slot))
            self._freeing.add(task)
            task.add_done_callback(self._freeing.discard)

    async def _take(self, kind: str, *, search: bool, wait_s: float) -> int:
        limits = self._limits[search]
        until = time.monotonic() + wait_s
        while True:
            row = await self._db.fetch_one(
                "take_call_slot",
                {
                    "kind": kind,
                    "search": search,
                    "limits": [limit.calls for limit in limits],
                    "windows_s": [limit.window_s for limit in limits],
                    "share": self._shares[search].get(kind, 1.0),
                    "timeout_s": self._call_timeout_s,
                },
            )
            assert row is not None
            slot, must_wait_s, day_is_over = row
            if slot is not None:
                return int(slot)
            if day_is_over:
                raise CrmBusy(retry_after_s=max(1, min(round(must_wait_s), _LONGEST_WAIT_S)), policy="DAILY")
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise CrmBusy(retry_after_s=max(1, round(must_wait_s)))
            await asyncio.sleep(min(must_wait_s, _LOOK_AGAIN_S, left_s))

    async def _free(self, taken: int, slot: CallSlot) -> None:
        # If this fails the slot frees itself at its timeout.
        with suppress(DatabaseUnavailable):
            await self._db.fetch_all(
                "free_call_slot",
                {
                    "slot": taken,
                    "daily_limit": slot.daily_limit,
                    "daily_remaining": slot.daily_remaining,
                },
            )
