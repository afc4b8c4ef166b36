"""Walks the list of all records of a type, several ranges of ids at once.

One page after the other would be limited by latency: at 300 ms a call, three pages a second where nineteen
are allowed. The list has no index lag and no limit of 10,000, and its cursor is an id, so it can be entered
anywhere. Ids are sparse and unevenly spread: nobody knows beforehand where the records are. So ranges are
split as they go: whoever is free takes over the upper half of the range that seems to have most left, judged
by how dense its last page was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import msgspec

from tallybook.domain.errors import CrmUnavailable, SetupError, Unavailable
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import PAGE_SIZE, HubSpotClient
from tallybook.hubspot.records import Record, RecordPage

_SEARCH_CEILING = 10_000
_LOOK_AHEAD_S = 5.0
_WORTH_SPLITTING = 3 * PAGE_SIZE  # One page is on its way, and each half should have one to itself.


class RangeLeft(msgspec.Struct, frozen=True, array_like=True):
    """Ids not given yet: from `first_id` to below `end_id` (None: the list's end), entered at `after`."""

    first_id: int
    end_id: int | None
    after: str | None


class WalkPage(msgspec.Struct, frozen=True):
    """Some records, and what is left once these are safe.

    `left` can be stored (it converts to JSON) and given back to go on from here; it is empty after the last
    page. `total` is how many records there are, about, where it could be found out. Whatever exists from
    `first_id` to below `end_id` (None: to the end) is among the records; nothing is said of an empty range.
    """

    records: tuple[Record, ...]
    left: tuple[RangeLeft, ...]
    total: int | None
    first_id: int = 0
    end_id: int | None = 0


@dataclass(slots=True, eq=False)
class _Range:
    """A range being walked. `next_*` is ahead of `given_*` while a page waits to be given."""

    next_id: int
    end_id: int | None
    after: str | None
    density: float = 0.0
    given_id: int = 0
    given_after: str | None = None
    done: bool = False
    given_done: bool = False
    waiting: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.given_id, self.given_after = self.next_id, self.after

    def left(self) -> RangeLeft:
        return RangeLeft(self.given_id, self.end_id, self.given_after)

    def take(self, page: RecordPage, *, in_order: bool) -> None:
        """Keeps what lies in the range, and moves on."""
        ids = [int(record.id) for record in page.results]
        if in_order:
            _check_order(ids, self.after)
        end = self.end_id
        self.waiting = [
            record
            for record, record_id in zip(page.results, ids, strict=True)
            if not in_order or (record_id >= self.next_id and (end is None or record_id < end))
        ]
        if ids:
            self.next_id = max(self.next_id, ids[-1] + 1)
            self.density = len(ids) / (ids[-1] - ids[0] + 1)
        if page.next_after is not None and page.next_after == self.after:
            raise CrmUnavailable(operation="list", problem="HubSpot's cursor does not move")
        self.after = page.next_after
        if in_order and self.after is not None and self.after.isdigit():
            self.next_id = max(
                self.next_id, int(self.after)
            )  # Where the cursor is the next id, it skips a void.
        self.done = self.after is None or (in_order and end is not None and self.next_id >= end)

    def covered(self) -> tuple[int, int | None]:
        """The ids that the page waiting to be given is complete for."""
        return self.given_id, self.end_id if self.done else self.next_id

    def give(self) -> tuple[Record, ...]:
        """The records taken; from now on they are the receiver's."""
        records, self.waiting = tuple(self.waiting), []
        self.given_id, self.given_after, self.given_done = self.next_id, self.after, self.done
        return records


def _check_order(ids: list[int], after: str | None) -> None:
    lowest = int(after) if after is not None and after.isdigit() else 0
    if ids != sorted(set(ids)) or (ids and ids[0] < lowest):
        raise SetupError(
            "HubSpot's list is not in the order of its ids, so it cannot be read in several ranges.",
            hint="Read it with parallel_ranges=1 and report this.",
        )


class _Walk:
    def __init__(
        self,
        client: HubSpotClient,
        object_type: str,
        *,
        properties: Sequence[str],
        associations: Sequence[str],
        archived: bool,
        kind: CallKind,
        parallel_ranges: int,
        page_deadline_s: float,
    ) -> None:
        self._client = client
        self._object_type = object_type
        self._properties = properties
        self._associations = associations
        self._archived = archived
        self._kind = kind
        self._parallel_ranges = parallel_ranges
        self._deadline_s = page_deadline_s
        self._ranges: list[_Range] = []
        self._on_the_way: dict[asyncio.Task[RecordPage], _Range] = {}
        self._in_order = False
        self._newest_id: int | None = None
        self._total: int | None = None
        self._taken = 0

    async def run(self, left: tuple[RangeLeft, ...] | None) -> AsyncGenerator[WalkPage, None]:
        starts = left if left is not None else (RangeLeft(0, None, None),)
        self._ranges = [_Range(item.first_id, item.end_id, item.after) for item in starts]
        # A single range follows HubSpot's own cursor to the end and needs no promise about the order.
        self._in_order = self._parallel_ranges > 1 or starts != (RangeLeft(0, None, starts[0].after),)
        has_looked = self._parallel_ranges == 1
        try:
            while self._ranges:
                self._start_calls()
                finished, _ = await asyncio.wait(self._on_the_way, return_when=asyncio.FIRST_COMPLETED)
                arrived = [self._arrive(task) for task in finished]
                if not has_looked and not all(one.done for one in self._ranges):
                    has_looked = True
                    await self._look_ahead(arrived[0])
                self._start_calls()  # Before giving: the receiver's work and the next calls go on together.
                for one in arrived:
                    first_id, end_id = one.covered() if self._in_order else (0, 0)
                    records = one.give()
                    self._ranges = [item for item in self._ranges if not item.given_done]
                    rest = tuple(item.left() for item in self._ranges)
                    yield WalkPage(records, rest, self._total, first_id, end_id)
        finally:
            for task in self._on_the_way:
                task.cancel()
            await asyncio.gather(*self._on_the_way, return_exceptions=True)

    def _arrive(self, task: asyncio.Task[RecordPage]) -> _Range:
        one = self._on_the_way.pop(task)
        one.take(task.result(), in_order=self._in_order)
        self._taken += len(one.waiting)
        return one

    async def _look_ahead(self, first: _Range) -> None:
        """Finds the newest id and how many records there are; without, the walk is slower, not wrong."""
        cursor_is_an_id = (
            first.after is not None and first.after.isdigit() and int(first.after) >= first.next_id - 1
        )
        if self._archived or (first.after is not None and not cursor_is_an_id):
            self._parallel_ranges = 1
            return
        try:
            page = await self._client.search(
                self._object_type,
                kind=self._kind,
                deadline_s=min(self._deadline_s, _LOOK_AHEAD_S),
                sort_by="hs_object_id",
                descending=True,
                limit=1,
            )
        except Unavailable:
            return
        if not page.results:
            return
        self._newest_id = int(page.results[0].id)
        # Where HubSpot counts no further than a search can page, the number says nothing.
        self._total = page.total if page.total != _SEARCH_CEILING else None

    def _start_calls(self) -> None:
        busy = set(self._on_the_way.values())
        for one in self._ranges:
            if len(busy) >= self._parallel_ranges:
                return
            if one not in busy and not one.done:
                self._start(one)
                busy.add(one)
        while len(busy) < self._parallel_ranges and (half := self._split()) is not None:
            self._start(half)
            busy.add(half)

    def _start(self, one: _Range) -> None:
        call = self._client.list_page(
            self._object_type,
            properties=self._properties,
            associations=self._associations,
            archived=self._archived,
            after=one.after,
            kind=self._kind,
            deadline_s=self._deadline_s,
        )
        self._on_the_way[asyncio.create_task(call)] = one

    def _split(self) -> _Range | None:
        """The upper half of the range with most left, as its own range; None where not worth a call."""
        active = [one for one in self._ranges if not one.done]
        if not active or len(active) * _WORTH_SPLITTING > self._records_left():
            return None
        widest = max(active, key=self._estimate)
        if self._estimate(widest) < _WORTH_SPLITTING:
            return None
        # If all that is left lay as dense as here, it would end well before a void: do not look for it there.
        reach = min(self._end_of(widest) - widest.next_id, self._records_left() / widest.density)
        middle = widest.next_id + int(reach) // 2
        # One id early: it does not matter then whether the cursor means `from` or `after`.
        half = _Range(middle, widest.end_id, str(middle - 1))
        widest.end_id = middle
        self._ranges.append(half)
        return half

    def _records_left(self) -> float:
        unknown = self._total is None or self._taken > self._total
        return float("inf") if unknown else (self._total or 0) - self._taken

    def _estimate(self, one: _Range) -> float:
        # Nothing is known of a range before its first page; splitting it again would multiply a guess.
        return max(0, self._end_of(one) - one.next_id) * one.density

    def _end_of(self, one: _Range) -> int:
        """Where the range ends as far as known: the last one is open, and so ends at the newest id known."""
        if one.end_id is not None:
            return one.end_id
        return self._newest_id + 1 if self._newest_id is not None else 0


def walk(
    client: HubSpotClient,
    object_type: str,
    *,
    properties: Sequence[str],
    kind: CallKind,
    associations: Sequence[str] = (),
    archived: bool = False,
    parallel_ranges: int = 16,
    page_deadline_s: float = 120.0,
    left: tuple[RangeLeft, ...] | None = None,
) -> AsyncGenerator[WalkPage, None]:
    """All records of a type, each once, in no order, with at most `parallel_ranges` pages in memory.

    Records made while it runs may or may not be among them. `left` of the last page whose records are safe
    goes on after a stop; an empty one means the walk was complete. A page that fails for `page_deadline_s`
    ends the walk with CrmBusy or CrmUnavailable. Close it (`contextlib.aclosing`) when leaving early, so that
    no call goes on alone.
    """
    walking = _Walk(
        client,
        object_type,
        properties=properties,
        associations=associations,
        archived=archived,
        kind=kind,
        parallel_ranges=parallel_ranges,
        page_deadline_s=page_deadline_s,
    )
    return walking.run(left)
