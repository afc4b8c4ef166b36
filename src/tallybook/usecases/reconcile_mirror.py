"""Compares everything with HubSpot, both ways: for what no search shows and no outbox row remembers.

HubSpot's list is walked and absorbed, so whatever differs is merged as any other answer; those of ours that
it does not show are read by themselves; what HubSpot was not told although nobody remembers is queued.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from tallybook.domain.mirror import MirroredType, Outcome
from tallybook.hubspot.booking_fields import BOOKING_PROPERTIES, linked_ids
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.fields import contact_properties, parse_contact
from tallybook.hubspot.portal_shape import never_sent
from tallybook.hubspot.records import Record
from tallybook.hubspot.session_fields import MOCK_EXAM_PROPERTIES
from tallybook.hubspot.walk import RangeLeft, walk
from tallybook.postgres.pool import Database
from tallybook.usecases.absorb_bookings import absorb_bookings
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.absorb_mock_exams import absorb_mock_exams
from tallybook.usecases.ask_to_read import ask_to_read
from tallybook.usecases.mirror import Mirror, Pulled
from tallybook.usecases.pull_mock_exams import with_prerequisites
from tallybook.usecases.pull_prerequisites import pull_prerequisites

_STATE = "reconcile"
_KIND = CallKind.RECONCILE
_DEADLINE_S = 120.0
_AT_ONCE = 1000
_TYPES = tuple(MirroredType)
_FIRST = UUID(int=0)


_COUNTED = ("calls", "seen", "unseen", "read_again", "not_stored", "ahead", "ours", "unpushed")


class _Place(msgspec.Struct, frozen=True):
    """How far a reconcile is: which type, walking HubSpot's list or looking through ours, and where."""

    began_at: datetime
    type_number: int = 0
    left: tuple[RangeLeft, ...] | None = None
    looking_after: UUID | None = None
    counts: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))


class _State(msgspec.Struct, frozen=True):
    """What is remembered: the place of one under way, and when the last one began that came to its end."""

    under_way: _Place | None = None
    complete_at: datetime | None = None


@dataclass(slots=True)
class Reconciled:
    """What a reconcile has found so far, over all calls that belong to it.

    `seen` records were compared, `unseen` of ours are read by themselves, `unpushed` are those HubSpot was
    not told about. `calls` is how many it took.
    """

    counts: Counter[str] = field(default_factory=Counter)
    done: bool = False


async def reconcile_mirror(
    mirror: Mirror, *, repair: bool, go_on: Callable[[], bool] = lambda: True
) -> Reconciled:
    """Goes on where the last call stopped. With `repair`, what HubSpot was not told is queued, else counted.

    `go_on` is asked between pages. Raises CrmBusy, CrmUnavailable, SetupError, DatabaseUnavailable; the next
    call goes on from there.
    """
    state = await _load(mirror.db)
    place = state.under_way or _Place(datetime.now(UTC))
    while place.type_number < len(_TYPES):
        of = _TYPES[place.type_number]
        if place.looking_after is None:
            place = await _walk(mirror, of, place, state, go_on)
        else:
            place = await _look(mirror, of, place, repair=repair)
        await _save(mirror.db, msgspec.structs.replace(state, under_way=place))
        if not go_on():
            return Reconciled(Counter(place.counts), done=place.type_number == len(_TYPES))
    await _save(mirror.db, _State(complete_at=place.began_at))
    return Reconciled(Counter(place.counts), done=True)


async def last_reconcile(db: Database) -> tuple[datetime | None, bool]:
    """When the last one began that came to its end, and whether one is under way."""
    state = await _load(db)
    return state.complete_at, state.under_way is not None


async def _walk(
    mirror: Mirror, of: MirroredType, place: _Place, state: _State, go_on: Callable[[], bool]
) -> _Place:
    """HubSpot's list, from where it was left; the place after it or where there was no more time."""
    counts = Counter(place.counts)
    made = mirror.client.calls[_KIND]
    pages = walk(
        mirror.client,
        mirror.crm_type(of),
        properties=_properties(mirror, of),
        associations=_associations(mirror, of),
        kind=_KIND,
        left=place.left,
        page_deadline_s=_DEADLINE_S,
    )
    async with aclosing(pages):
        async for page in pages:
            counts["seen"] += len(page.records)
            await _absorb(mirror, of, page.records, counts)
            if page.end_id != page.first_id:
                row = await mirror.db.fetch_one(
                    "ask_unseen",
                    {
                        "object_type": of,
                        "first_id": page.first_id,
                        "end_id": page.end_id,
                        "seen": [record.id for record in page.records],
                    },
                )
                counts["unseen"] += row[0] if row else 0
            counts["calls"] += mirror.client.calls[_KIND] - made
            made = mirror.client.calls[_KIND]
            place = msgspec.structs.replace(place, left=page.left, counts=dict(counts))
            if page.left:
                await _save(mirror.db, msgspec.structs.replace(state, under_way=place))
                if not go_on():
                    return place
    return msgspec.structs.replace(place, left=None, looking_after=_FIRST)


async def _look(mirror: Mirror, of: MirroredType, place: _Place, *, repair: bool) -> _Place:
    """The next thousand of ours."""
    made = mirror.client.calls[_KIND]
    skip = await never_sent(mirror.client, of, kind=_KIND)
    row = await mirror.db.fetch_one(
        "queue_unpushed",
        {
            "object_type": of,
            "after": place.looking_after,
            "limit": _AT_ONCE,
            "repair": repair,
            "skip": list(skip),
        },
    )
    assert row is not None
    last_id, looked_at, unpushed = row
    counts = Counter(place.counts)
    counts.update(ours=looked_at, unpushed=unpushed, calls=mirror.client.calls[_KIND] - made)
    if last_id is not None:
        return msgspec.structs.replace(place, looking_after=last_id, counts=dict(counts))
    return _Place(place.began_at, place.type_number + 1, counts=dict(counts))


async def _absorb(mirror: Mirror, of: MirroredType, records: Sequence[Record], counts: Counter[str]) -> None:
    if of is MirroredType.CONTACT:
        contacts = [parse_contact(record, mirror.catalog) for record in records]
        absorbed = await absorb_contacts(mirror.db, contacts, first_reason="crm_link", students_only=True)
        again = [
            hubspot_id
            for hubspot_id, each in absorbed.items()
            if each.outcome in (Outcome.NEED_HISTORY, Outcome.AGAIN)
        ]
        counts["ahead"] += sum(each.outcome is Outcome.AHEAD for each in absorbed.values())
        pulled = Pulled(again=tuple(again))
    elif of is MirroredType.MOCK_EXAM:
        pulled = await absorb_mock_exams(mirror, records)
        # Who requires what is an association, and a change of those makes no record look newer.
        await pull_prerequisites(mirror, with_prerequisites(records), kind=_KIND, deadline_s=_DEADLINE_S)
    else:
        pulled = await absorb_bookings(mirror, records, kind=_KIND, deadline_s=_DEADLINE_S)
        await _notice_lost_links(mirror, records)
    counts["not_stored"] += len(pulled.errors)
    counts["read_again"] += len(pulled.again)
    if pulled.again:
        await ask_to_read(mirror.db, of, pulled.again)


async def _notice_lost_links(mirror: Mirror, records: Sequence[Record]) -> None:
    """Associations somebody removed in HubSpot: pushing makes them again."""
    links = []
    for record in records:
        contacts, mock_exams = linked_ids(record)
        links.append({"hubspot_id": record.id, "contacts": contacts, "mock_exams": mock_exams})
    await mirror.db.fetch_all("forget_lost_links", {"links": msgspec.json.encode(links).decode()})


def _properties(mirror: Mirror, of: MirroredType) -> Sequence[str]:
    if of is MirroredType.CONTACT:
        return contact_properties(mirror.catalog)
    return MOCK_EXAM_PROPERTIES if of is MirroredType.MOCK_EXAM else BOOKING_PROPERTIES


def _associations(mirror: Mirror, of: MirroredType) -> Sequence[str]:
    if of is not MirroredType.BOOKING:
        return ()
    return (mirror.crm_type(MirroredType.CONTACT), mirror.crm_type(MirroredType.MOCK_EXAM))


async def _load(db: Database) -> _State:
    row = await db.fetch_one("load_sync_state", {"name": _STATE})
    return msgspec.json.decode(row[0], type=_State) if row else _State()


async def _save(db: Database, state: _State) -> None:
    await db.fetch_all("save_sync_state", {"name": _STATE, "value": msgspec.json.encode(state).decode()})
