"""Compares HubSpot with our tables, object by object: whatever is settled has to be equal on both sides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from tallybook.domain.errors import SetupError
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import BATCH_SIZE
from tallybook.hubspot.portal_shape import lane_shape
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.read_mirrored import Shown, read_mirrored
from tallybook.usecases.show_sync_status import show_sync_status

_KIND = CallKind.RECONCILE
_DEADLINE_S = 120.0
_BATCHES_AT_ONCE = 8
_LOOK_AGAIN_S = 1.0
# Enough to act on; beyond that only the number matters, and memory stays bounded.
_MOST_LISTED = 1000
_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Difference:
    """One field, or the record as a whole, that is not the same on both sides."""

    object_type: MirroredType
    object_id: UUID
    hubspot_id: str | None
    field: str
    ours: str | None
    theirs: str | None


@dataclass(slots=True)
class Compared:
    """How many objects of a type there are, and what became of them.

    `settled`: nothing was on its way and nobody has to decide. `compared`: settled and unchanged from before
    HubSpot was read until after. `skipped`: all others.
    """

    objects: int = 0
    settled: int = 0
    compared: int = 0
    different: int = 0

    @property
    def skipped(self) -> int:
        """Those nothing can be said about at this moment."""
        return self.objects - self.compared


@dataclass(frozen=True, slots=True)
class MirrorReport:
    """What was found; `differences` lists at most a thousand."""

    compared: Mapping[MirroredType, Compared]
    differences: tuple[Difference, ...]
    waited_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether everything that could be compared is equal."""
        return not any(each.different for each in self.compared.values())


@dataclass(frozen=True, slots=True)
class _Ours:
    """One of our objects as it should be seen in HubSpot."""

    id: UUID
    hubspot_id: str | None
    is_settled: bool
    version: str
    is_archived: bool
    texts: Mapping[str, str | None]
    links: Mapping[str, str | None]


@dataclass(slots=True)
class _Findings:
    """What one look at all objects brought."""

    counts: dict[MirroredType, Compared] = field(
        default_factory=lambda: {each: Compared() for each in MirroredType}
    )
    differences: dict[tuple[MirroredType, UUID], list[Difference]] = field(default_factory=dict)


async def verify_mirror(
    mirror: Mirror,
    *,
    wait_s: float = 0.0,
    on_progress: Callable[[Mapping[MirroredType, Compared]], None] | None = None,
) -> MirrorReport:
    """Compares all objects, a hundred at a time, with the calls that reconciling may use; writes nothing.

    `wait_s`: how long to wait until nothing is on its way, and for what differs to become equal. Raises
    SetupError (also for another portal than ours), CrmBusy, CrmUnavailable, DatabaseUnavailable.
    """
    started = time.monotonic()
    ends_at = started + wait_s
    await _demand_portal(mirror)
    await _wait_until_settled(mirror, ends_at)
    findings = _Findings()
    for of in MirroredType:
        check = _Check(mirror, of, findings, (await lane_shape(mirror.client, of, kind=_KIND)).read_only)
        async for _ in check.everything():
            if on_progress is not None:
                on_progress(findings.counts)
        await check.look_again(ends_at)
    listed = [each for found in findings.differences.values() for each in found]
    return MirrorReport(findings.counts, tuple(listed[:_MOST_LISTED]), time.monotonic() - started)


class _Check:
    """One type of objects being compared."""

    def __init__(
        self, mirror: Mirror, of: MirroredType, findings: _Findings, read_only: Sequence[str]
    ) -> None:
        self._mirror = mirror
        self._of = of
        self._counts = findings.counts[of]
        self._differences = findings.differences
        self._read_only = frozenset(read_only)
        balances = (each.hubspot_property for each in mirror.catalog.mirrored_credit_types)
        self._numbers = {"total_bookings", *balances}

    async def everything(self) -> AsyncIterator[None]:
        """Compares all, some batches at a time; gives control back after each."""
        running: set[asyncio.Task[None]] = set()
        try:
            async for ids in self._pages():
                self._counts.objects += len(ids)
                running.add(asyncio.create_task(self._compare(ids)))
                if len(running) >= _BATCHES_AT_ONCE:
                    running = await _first_of(running)
                    yield
            while running:
                running = await _first_of(running)
                yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def look_again(self, ends_at: float) -> None:
        """What differed may have been changed a moment before: once more, and then until the time is over."""
        while True:
            ids = [object_id for of, object_id in self._differences if of is self._of]
            for start in range(0, len(ids), BATCH_SIZE):
                batch = ids[start : start + BATCH_SIZE]
                for object_id in batch:
                    del self._differences[self._of, object_id]
                self._counts.different -= len(batch)
                self._counts.settled -= len(batch)
                self._counts.compared -= len(batch)
                await self._compare(batch)
            if not any(of is self._of for of, _ in self._differences) or time.monotonic() >= ends_at:
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _pages(self) -> AsyncIterator[list[UUID]]:
        after = _FIRST
        while True:
            params = {"after": after, "limit": BATCH_SIZE}
            rows = await self._mirror.db.fetch_all(f"mirror/page_{self._of.value}", params)
            if not rows:
                return
            ids = [object_id for (object_id,) in rows]
            yield ids
            after = ids[-1]

    async def _compare(self, ids: Sequence[UUID]) -> None:
        before = {each.id: each for each in await self._ours(ids) if each.is_settled}
        self._counts.settled += len(before)
        known = [each.hubspot_id for each in before.values() if each.hubspot_id is not None]
        shown = await read_mirrored(self._mirror, self._of, known, kind=_KIND, deadline_s=_DEADLINE_S)
        for after in await self._ours(list(before)):
            # Something happened while HubSpot was read: which of the two states it showed, nobody knows.
            if not after.is_settled or after.version != before[after.id].version:
                continue
            self._counts.compared += 1
            found = self._differences_of(after, shown.get(after.hubspot_id or ""))
            if found:
                self._counts.different += 1
                if len(self._differences) < _MOST_LISTED:
                    self._differences[self._of, after.id] = found

    async def _ours(self, ids: Sequence[UUID]) -> list[_Ours]:
        rows = await self._mirror.db.fetch_all(f"mirror/state_{self._of.value}", {"ids": list(ids)})
        return [
            _Ours(
                id=row[0],
                hubspot_id=row[1],
                is_settled=row[2],
                version=row[3],
                is_archived=row[4],
                texts=msgspec.json.decode(row[5], type=dict[str, str | None]),
                links=msgspec.json.decode(row[6], type=dict[str, str | None]),
            )
            for row in rows
        ]

    def _differences_of(self, ours: _Ours, theirs: Shown | None) -> list[Difference]:
        if ours.is_archived or theirs is None:
            here, there = _presence(ours), None if theirs is None else "there"
            # Archived records are not among those that are read.
            return [] if ours.is_archived and theirs is None else [self._difference(ours, "", here, there)]
        found = [
            self._difference(ours, name, value, theirs.texts[name])
            for name, value in ours.texts.items()
            if name in theirs.texts
            and name not in self._read_only
            and not self._is_same(name, value, theirs.texts[name])
        ]
        if theirs.tallybook_id not in (None, str(ours.id)):
            found.append(self._difference(ours, "tallybook_id", str(ours.id), theirs.tallybook_id))
        found += [
            self._difference(ours, f"association with the {end}", wanted, ", ".join(theirs.links[end]))
            for end, wanted in ours.links.items()
            if wanted is not None and wanted not in theirs.links[end]
        ]
        return found

    def _is_same(self, name: str, ours: str | None, theirs: str | None) -> bool:
        if name in self._numbers:
            return (ours or "0") == (theirs or "0")
        return (ours or None) == (theirs or None)

    def _difference(self, ours: _Ours, name: str, value: str | None, other: str | None) -> Difference:
        return Difference(self._of, ours.id, ours.hubspot_id, name or "record", value, other)


def _presence(ours: _Ours) -> str:
    if ours.is_archived:
        return "archived"
    return "there" if ours.hubspot_id is not None else "never written to HubSpot"


async def _first_of(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    done, left = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return left


async def _demand_portal(mirror: Mirror) -> None:
    status = await show_sync_status(mirror.db)
    account = await mirror.client.account_details(kind=_KIND, deadline_s=_DEADLINE_S)
    portal_id = (status["portal"] or {}).get("portal_id", account.portal_id)
    if portal_id != account.portal_id:
        raise SetupError(
            f"This database belongs to HubSpot portal {portal_id}; the token opens portal"
            f" {account.portal_id}.",
            hint=f"Set HS_PRIVATE_APP_TOKEN to a token of portal {portal_id}.",
        )


async def _wait_until_settled(mirror: Mirror, ends_at: float) -> None:
    while (left_s := ends_at - time.monotonic()) > 0:
        row = await mirror.db.fetch_one("mirror/unsettled")
        if row is None or row[0] == 0:
            return
        await asyncio.sleep(min(_LOOK_AGAIN_S, left_s))
