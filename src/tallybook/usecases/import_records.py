"""The way through all records of a type: page by page, in constant memory, going on where it stopped."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.records import Record
from tallybook.hubspot.walk import RangeLeft, WalkPage, walk
from tallybook.postgres.pool import Database
from tallybook.usecases.mirror import Mirror

# Plans made for empty tables get slower with every page; autovacuum would notice minutes later.
STATISTICS_AFTER_PAGES = frozenset((10, 100, 1_000))


@dataclass(slots=True, kw_only=True)
class Imported:
    """What an import of one type has done so far: `read` records of `total` (None: unknown).

    `complete` is false when it stopped at a limit; the next import goes on from there, `resumed`.
    """

    read: int = 0
    total: int | None = None
    not_stored: int = 0
    resumed: bool = False
    complete: bool = False
    duration_s: float = 0.0


async def import_records(
    mirror: Mirror,
    of: MirroredType,
    result: Imported,
    take: Callable[[Sequence[Record]], Awaitable[None]],
    *,
    properties: Sequence[str],
    associations: Sequence[str] = (),
    at_once: int = 1,
    limit: int | None = None,
    dry_run: bool = False,
    max_s: float | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Gives every record of the type to `take`, `at_once` pages at a time, and counts into `result`.

    Stops after `limit` records or `max_s` seconds; what is left is remembered, unless limited or in a dry
    run.
    Raises CrmBusy, CrmUnavailable, SetupError, DatabaseUnavailable; what was taken until then stays.
    """
    started = time.monotonic()
    remembers = not dry_run and limit is None
    left = await left_of_last_time(mirror.db, of) if remembers else None
    result.resumed = left is not None
    pages = walk(
        mirror.client,
        mirror.crm_type(of),
        properties=properties,
        associations=associations,
        kind=CallKind.IMPORT,
        left=left,
    )
    page_number = 0

    async def take_page(page: WalkPage) -> int:
        records = page.records if limit is None else page.records[: limit - result.read]
        await take(records)
        return len(records)

    def has_time() -> bool:
        return max_s is None or time.monotonic() - started < max_s

    rest: tuple[RangeLeft, ...] = ()
    async with aclosing(pages), aclosing(_taken(pages, take_page, at_once, has_time)) as taken:
        async for page, read in taken:
            page_number += 1
            if not dry_run and page_number in STATISTICS_AFTER_PAGES:
                await mirror.db.fetch_all("refresh_statistics")
            result.read += read
            result.total = page.total
            result.duration_s = time.monotonic() - started
            rest = page.left
            if remembers:
                await remember(mirror.db, of, rest)
            on_progress()
            if limit is not None and result.read >= limit:
                return
    result.complete = not rest
    result.duration_s = time.monotonic() - started


async def _taken(
    pages: AsyncIterator[WalkPage],
    take: Callable[[WalkPage], Awaitable[int]],
    at_once: int,
    go_on: Callable[[], bool],
) -> AsyncGenerator[tuple[WalkPage, int], None]:
    """Each page with what `take` gave for it, in their order, when it and all before it were taken.

    So what a page leaves to be read is safe to remember, although the next is being taken already. When
    `go_on` says no, those begun are brought to their end.
    """
    under_way: deque[tuple[WalkPage, asyncio.Future[int]]] = deque()
    try:
        async for page in pages:
            under_way.append((page, asyncio.ensure_future(take(page))))
            if len(under_way) >= at_once:
                first, taking = under_way[0]
                read = await taking
                under_way.popleft()
                yield first, read
                if not go_on():
                    break
        while under_way:
            first, taking = under_way[0]
            read = await taking
            under_way.popleft()
            yield first, read
    finally:
        for _, taking in under_way:
            taking.cancel()
        await asyncio.gather(*(taking for _, taking in under_way), return_exceptions=True)


async def left_of_last_time(db: Database, of: str) -> tuple[RangeLeft, ...] | None:
    """What the last import `of` these left to be read; None: nothing."""
    row = await db.fetch_one("load_sync_state", {"name": f"import:{of}"})
    return (msgspec.json.decode(row[0], type=tuple[RangeLeft, ...]) or None) if row else None


async def remember(db: Database, of: str, left: tuple[RangeLeft, ...]) -> None:
    """Keeps what is left for the next import."""
    value = msgspec.json.encode(left).decode()
    await db.fetch_all("save_sync_state", {"name": f"import:{of}", "value": value})
