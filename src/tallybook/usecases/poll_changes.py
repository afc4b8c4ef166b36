"""Finds out what changed in HubSpot by searching, complete without any webhook.

A pass asks for everything modified since the last one began, less an overlap for what the index showed late.
It goes by id beyond the last, so neither many records of one moment nor HubSpot's ceiling of 10,000 results
can hide any. What it finds is only asked for: the records are read elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from tallybook.domain.errors import CrmUnavailable
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.records import SearchPage
from tallybook.postgres.pool import Database
from tallybook.usecases.mirror import Mirror

_DEADLINE_S = 60.0
_PAGE_SIZE = 200
_OVERLAP = timedelta(seconds=60)
# Now and then a pass looks back further, for what the index showed later than usual.
_DEEP_OVERLAP = timedelta(minutes=15)
_DEEP_EVERY = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Polled:
    """What a pass did: `asked` of the records it `found` were news. `done`: it got to its end."""

    searches: int = 0
    found: int = 0
    asked: int = 0
    done: bool = True


class _Pass(msgspec.Struct, frozen=True):
    """A pass under way: where it starts, when HubSpot answered it first, and how far it is."""

    since: datetime | None
    is_deep: bool
    began_at: datetime | None = None
    last_id: str | None = None


class _Marks(msgspec.Struct, frozen=True):
    """When the last complete passes began, by HubSpot's clock."""

    mark: datetime | None = None
    deep_mark: datetime | None = None
    under_way: _Pass | None = None

    def next_pass(self) -> _Pass:
        if self.under_way is not None:
            return self.under_way
        if self.mark is None or self.deep_mark is None:
            return _Pass(None, is_deep=True)
        if self.mark - self.deep_mark >= _DEEP_EVERY:
            return _Pass(self.deep_mark - _DEEP_OVERLAP, is_deep=True)
        return _Pass(self.mark - _OVERLAP, is_deep=False)

    def after(self, done: _Pass) -> _Marks:
        assert done.began_at is not None
        return _Marks(done.began_at, done.began_at if done.is_deep else self.deep_mark)


async def poll_changes(
    mirror: Mirror, mirrored: MirroredType, *, go_on: Callable[[], bool] = lambda: True
) -> Polled:
    """One pass over a type; the first one is over everything. Nobody else may do the same at this moment.

    `go_on` is asked between pages; what is left is done by the next call. Raises CrmBusy, CrmUnavailable,
    SetupError, DatabaseUnavailable; the mark moves only at the end of a complete pass.
    """
    marks = await _load(mirror.db, mirrored)
    going = marks.next_pass()
    searches = found = asked = 0
    while True:
        page = await _search(mirror, mirrored, going)
        searches += 1
        found += len(page.results)
        asked += await _ask(mirror.db, mirrored, page)
        if going.began_at is None:
            going = msgspec.structs.replace(going, began_at=_answered_at(page))
        if page.next_after is None:
            break
        going = msgspec.structs.replace(going, last_id=_last_id(page, going.last_id))
        await _save(mirror.db, mirrored, msgspec.structs.replace(marks, under_way=going))
        if not go_on():
            return Polled(searches, found, asked, done=False)
    marks = marks.after(going)
    await _save(mirror.db, mirrored, marks)
    if going.is_deep:
        assert marks.mark is not None
        await mirror.db.fetch_all(
            "forget_polled", {"object_type": mirrored, "before": marks.mark - 2 * _DEEP_OVERLAP}
        )
    return Polled(searches, found, asked)


async def _search(mirror: Mirror, mirrored: MirroredType, going: _Pass) -> SearchPage:
    filters: list[dict[str, Any]] = []
    if going.since is not None:
        since_ms = int(going.since.timestamp() * 1000)
        filters.append(
            {"propertyName": _modified_property(mirrored), "operator": "GTE", "value": str(since_ms)}
        )
    elif mirrored is MirroredType.CONTACT:
        # At first nobody is known, and who is no student need not become so.
        filters.append({"propertyName": "student_id", "operator": "HAS_PROPERTY"})
    if going.last_id is not None:
        filters.append({"propertyName": "hs_object_id", "operator": "GT", "value": going.last_id})
    return await mirror.client.search(
        mirror.crm_type(mirrored),
        kind=CallKind.PULL,
        deadline_s=_DEADLINE_S,
        filters=filters,
        sort_by="hs_object_id",
        limit=_PAGE_SIZE,
    )


def _modified_property(mirrored: MirroredType) -> str:
    return "lastmodifieddate" if mirrored is MirroredType.CONTACT else "hs_lastmodifieddate"


async def _ask(db: Database, mirrored: MirroredType, page: SearchPage) -> int:
    hits = {record.id: record.updated_at for record in page.results}
    if not hits:
        return 0
    row = await db.fetch_one(
        "note_polled", {"object_type": mirrored, "hits": msgspec.json.encode(hits).decode()}
    )
    return row[0] if row else 0


def _answered_at(page: SearchPage) -> datetime:
    if page.answered_at is None:
        # Another clock in its place could be ahead, and what changed in between would never be asked for.
        raise CrmUnavailable(operation="search", problem="HubSpot's answer has no Date")
    return page.answered_at


def _last_id(page: SearchPage, before: str | None) -> str:
    ids = [int(record.id) for record in page.results]
    if not ids or ids != sorted(set(ids)) or ids[0] <= int(before or -1):
        raise CrmUnavailable(operation="search", problem="results are not in the order of their ids")
    return str(ids[-1])


async def _load(db: Database, mirrored: MirroredType) -> _Marks:
    row = await db.fetch_one("load_sync_state", {"name": f"poll:{mirrored}"})
    return msgspec.json.decode(row[0], type=_Marks) if row else _Marks()


async def _save(db: Database, mirrored: MirroredType, marks: _Marks) -> None:
    value = msgspec.json.encode(marks).decode()
    await db.fetch_all("save_sync_state", {"name": f"poll:{mirrored}", "value": value})
