"""How many calls may be made: the seat every call takes before it leaves.

HubSpot counts calls in rolling windows. A call holds its slot from sending until one window after its answer
or timeout: whatever the network does to the spacing, no window at HubSpot's side can then hold more than the
limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tallybook.domain.call_limits import CallLimit, CallSlot
from tallybook.domain.errors import CrmBusy, DatabaseUnavailable, SetupError


class CallKind(StrEnum):
    """For what a call is made; each kind may fill another share of the limit."""

    MISS = "miss"
    UNSIGNED_MISS = "unsigned_miss"
    """A miss of somebody who showed no token or key: a stranger must not use up everybody's calls."""
    IMPORT = "import"
    PUSH = "push"
    PULL = "pull"
    RECONCILE = "reconcile"


SHARES: Mapping[CallKind, float] = {
    CallKind.MISS: 1.0,
    CallKind.UNSIGNED_MISS: 0.30,
    CallKind.IMPORT: 0.95,
    CallKind.PUSH: 0.90,
    CallKind.PULL: 0.70,
    CallKind.RECONCILE: 0.40,
}
"""Up to which part of the limit each kind of call may fill it (mirror.md 2)."""

SEARCH_SHARES: Mapping[CallKind, float] = {**SHARES, CallKind.PULL: 0.5}
"""The same for searches: asking what has changed leaves half of them to others."""


@dataclass(frozen=True, slots=True)
class CallMade:
    """One call that was sent, for counters and logs; `status` is None when no answer came."""

    kind: CallKind
    operation: str
    search: bool
    status: int | None
    seconds: float
    daily_remaining: int | None


CallObserver = Callable[[CallMade], None]


class CallBudget(Protocol):
    """Gives out slots for calls."""

    def slot(
        self, kind: CallKind, *, search: bool = False, wait_s: float
    ) -> AbstractAsyncContextManager[CallSlot]:
        """A slot for one call; raises CrmBusy with `retry_after_s` when none is free within `wait_s`."""
        ...  # pragma: no cover


class LocalCallBudget:
    """A budget of this process alone, for misses while PostgreSQL cannot hold the one all processes share.

    Each of `processes` takes its part of the limits, so that together they stay below; misses of unsigned
    callers take at most `unsigned_share` of that part.
    """

    def __init__(
        self, limits: Sequence[CallLimit], *, processes: int = 8, unsigned_share: float = 0.3
    ) -> None:
        def windows(share: float) -> list[tuple[asyncio.Semaphore, float]]:
            return [
                (asyncio.Semaphore(max(1, int(limit.calls * share / processes))), limit.window_s)
                for limit in limits
            ]

        all_misses = windows(1.0)
        # The narrow windows first: waiting there must not hold a slot that signed-in students could use.
        self._windows = {
            CallKind.MISS: all_misses,
            CallKind.UNSIGNED_MISS: [*windows(unsigned_share), *all_misses],
        }

    @asynccontextmanager
    async def slot(self, kind: CallKind, *, search: bool = False, wait_s: float) -> AsyncIterator[CallSlot]:
        """A slot for a miss; every other kind and every search waits for the shared budget to come back."""
        windows = self._windows.get(kind)
        if windows is None or search:
            raise CrmBusy(
                "Only look-ups of students may call HubSpot while the database is away.", retry_after_s=5
            )
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(wait_s):
                    for window, window_s in windows:
                        await window.acquire()
                        held.callback(asyncio.get_running_loop().call_later, window_s, window.release)
            except TimeoutError:
                longest_s = max(window_s for _, window_s in windows)
                raise CrmBusy(retry_after_s=max(1, round(longest_s / 2))) from None
            yield CallSlot()


class UnlimitedBudget:
    """No limit at all: for one-off calls such as doctor's, made before there is a database to count in."""

    @asynccontextmanager
    async def slot(
        self,
        kind: CallKind,  # noqa: ARG002
        *,
        search: bool = False,  # noqa: ARG002
        wait_s: float,  # noqa: ARG002
    ) -> AsyncIterator[CallSlot]:
        """Always free."""
        yield CallSlot()


class SharedBudget:
    """The budget all processes share in PostgreSQL; while that is away, this process's own part of it."""

    def __init__(self, shared: CallBudget, local: CallBudget) -> None:
        self._shared = shared
        self._local = local

    @asynccontextmanager
    async def slot(self, kind: CallKind, *, search: bool = False, wait_s: float) -> AsyncIterator[CallSlot]:
        """A slot for one call. Raises CrmBusy."""
        async with AsyncExitStack() as held:
            try:
                slot = await held.enter_async_context(self._shared.slot(kind, search=search, wait_s=wait_s))
            except DatabaseUnavailable:
                slot = await held.enter_async_context(self._local.slot(kind, search=search, wait_s=wait_s))
            yield slot


class NoHubSpot:
    """The budget of an installation without a HubSpot token: no call leaves."""

    def slot(
        self, kind: CallKind, *, search: bool = False, wait_s: float
    ) -> AbstractAsyncContextManager[CallSlot]:
        """Never. Raises SetupError."""
        del kind, search, wait_s
        raise SetupError(
            "HS_PRIVATE_APP_TOKEN is not set.", hint="Without it only stored students are known."
        )
