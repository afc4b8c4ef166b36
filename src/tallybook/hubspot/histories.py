"""Property histories: which of HubSpot's numbers people typed, and which of them we wrote ourselves.

HubSpot has no compare-and-set. What it has is a history per property, and all values of one request share its
time and source. So an entry of a balance is our own only when a stamp of the same time and source names it:
neither a value nor a source alone proves anything, since people type the numbers we write and other programs
use our token. Where a portal writes the values of one request one after the other (`tallybook doctor` finds
that out), the time may differ a little; then a stamp owns one entry of each property.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tallybook.domain.catalog import Catalog
from tallybook.hubspot.field_values import clean, whole_number
from tallybook.hubspot.records import HistoryEntry, Record
from tallybook.hubspot.stamps import Stamp, parse_stamp

SAME_TIME = timedelta(0)
ONE_REQUEST = timedelta(seconds=2)
"""How far apart the times of what one request wrote may lie; further apart they are two requests."""

_USER = re.compile(r"userId:([0-9]{1,20})", re.ASCII)
_WORD = re.compile(r"[A-Za-z_]{1,40}", re.ASCII)


class OwnStamp(NamedTuple):
    """A stamp of ours in a history, and its rank among all the texts there, from 1, oldest first."""

    entry: HistoryEntry
    stamp: Stamp
    rank: int


@dataclass(frozen=True, slots=True)
class NumberEntry:
    """One value a balance had in HubSpot. `number` is None when the text is none; nothing is 0 and `empty`.

    `own_rank`: which stamp says that one of our requests wrote it. `actor`: who did, without a name.
    """

    at: datetime
    number: int | None
    empty: bool
    own_rank: int | None
    actor: str

    @property
    def own(self) -> bool:
        """Whether one of our requests wrote it."""
        return self.own_rank is not None


@dataclass(frozen=True, slots=True)
class TextEntry:
    """When a text got its present value, and whether one of our requests wrote it."""

    at: datetime
    own: bool


@dataclass(frozen=True, slots=True)
class ContactHistory:
    """The histories of a contact's mirrored properties, oldest first, by credit type and by property.

    `late`: they do not reach up to the values of the same answer yet. `stamps` are the texts of the stamps
    HubSpot still remembers, oldest first. `own_within` is how far the times of one request may lie apart.
    """

    late: bool
    balances: dict[str, tuple[NumberEntry, ...]]
    texts: dict[str, TextEntry]
    stamps: tuple[str, ...] = ()
    own_within: timedelta = SAME_TIME

    def to_absorb(self) -> dict[str, Any]:
        """As the database function `absorb_contacts` takes it."""
        return {
            "late": self.late,
            "stamps": self.stamps,
            "own_within_s": self.own_within.total_seconds(),
            "balances": {
                name: [
                    {
                        "number": each.number,
                        "empty": each.empty,
                        "at": each.at.isoformat(),
                        "own": each.own,
                        "own_rank": each.own_rank,
                        "actor": each.actor,
                    }
                    for each in entries
                ]
                for name, entries in self.balances.items()
            },
            "texts": {
                name: {"at": each.at.isoformat(), "own": each.own} for name, each in self.texts.items()
            },
        }


def parse_history(
    record: Record, catalog: Catalog, *, stamp_property: str, texts: Sequence[str], own_within: timedelta
) -> ContactHistory | None:
    """The histories of a record that was read with them, else None.

    `own_within`: how far stamp and value of one request may lie apart on this portal.
    """
    shown = record.properties_with_history
    if shown is None:
        return None
    by_name = {name: oldest_first(entries) for name, entries in shown.items()}
    stamps = own_stamps(by_name.get(stamp_property, ()))
    late = not _reaches(by_name.get(stamp_property, ()), record.properties.get(stamp_property))
    balances: dict[str, tuple[NumberEntry, ...]] = {}
    for credit_type in catalog.mirrored_credit_types:
        name = credit_type.hubspot_property
        if name is None or name not in record.properties:
            continue
        entries = by_name.get(name, ())
        late = late or not _reaches(entries, record.properties[name])
        balances[credit_type.name] = tuple(
            _number_entry(each, name, owner, most=credit_type.largest_balance)
            for each, owner in zip(entries, owners(entries, stamps, name, own_within), strict=True)
        )
    return ContactHistory(
        late=late,
        stamps=tuple(each.value for each in by_name.get(stamp_property, ()) if each.value),
        balances=balances,
        texts={
            name: TextEntry(entries[-1].timestamp, owners(entries, stamps, None, own_within)[-1] is not None)
            for name in texts
            if (entries := by_name.get(name, ())) and _reaches(entries, record.properties.get(name))
        },
        own_within=own_within,
    )


def oldest_first(entries: Sequence[HistoryEntry]) -> tuple[HistoryEntry, ...]:
    """A property's history as it was written: HubSpot shows the newest first, of one millisecond, too."""
    in_order = entries[::-1]
    return tuple(sorted(in_order, key=lambda each: each.timestamp))


def own_stamps(entries: Sequence[HistoryEntry]) -> tuple[OwnStamp, ...]:
    """The stamps in the history of their property, both oldest first."""
    with_text = [each for each in entries if each.value]
    return tuple(
        OwnStamp(entry, stamp, rank)
        for rank, entry in enumerate(with_text, 1)
        if (stamp := parse_stamp(entry.value)) is not None
    )


def owners(
    entries: Sequence[HistoryEntry], stamps: Sequence[OwnStamp], name: str | None, within: timedelta
) -> list[OwnStamp | None]:
    """For each entry of the property `name` the stamp of the request of ours that wrote it, else None.

    Both come oldest first. A stamp has to name the number; of texts (`name` None) it names none, so source
    and time say all there is to say. Where all of one request has one time (`within` nothing), a stamp owns
    whatever has its own. Else it owns at most one entry, and later stamps own later entries, since each
    history is in the order in which requests arrived: as many as possible, for an own write that is not
    recognised would be booked as an edit, and of these the nearest.
    """
    if not within:
        by_origin: dict[tuple[datetime, str | None, str | None], list[OwnStamp]] = {}
        for stamp in stamps:
            # Two of our requests may arrive within one millisecond.
            by_origin.setdefault((stamp.entry.timestamp, *source_of(stamp.entry)), []).append(stamp)
        return [
            next(
                (
                    stamp
                    for stamp in by_origin.get((entry.timestamp, *source_of(entry)), ())
                    if _may_own(stamp, entry, name, within)
                ),
                None,
            )
            for entry in entries
        ]
    return _in_order(entries, stamps, name, within)


class _Pairs(NamedTuple):
    """Some pairs of entries and stamps, as a chain from the last one back: the more and nearer the better."""

    fewer: int
    apart: timedelta
    last: tuple[int, int] | None
    before: _Pairs | None


def _in_order(
    entries: Sequence[HistoryEntry], stamps: Sequence[OwnStamp], name: str | None, within: timedelta
) -> list[OwnStamp | None]:
    # The best pairs among the entries so far and each number of stamps, as in the longest common subsequence.
    best = [_Pairs(0, timedelta(0), None, None)] * (len(stamps) + 1)
    for at, entry in enumerate(entries):
        row = [best[0]]
        for of, stamp in enumerate(stamps):
            found = min(best[of + 1], row[of], key=_rank)
            if _may_own(stamp, entry, name, within):
                before = best[of]
                apart = before.apart + abs(stamp.entry.timestamp - entry.timestamp)
                found = min(found, _Pairs(before.fewer - 1, apart, (at, of), before), key=_rank)
            row.append(found)
        best = row
    owned: list[OwnStamp | None] = [None] * len(entries)
    pairs: _Pairs | None = best[-1]
    while pairs is not None and pairs.last is not None:
        at, of = pairs.last
        owned[at] = stamps[of]
        pairs = pairs.before
    return owned


def _rank(pairs: _Pairs) -> tuple[int, timedelta]:
    return pairs.fewer, pairs.apart


def _may_own(stamp: OwnStamp, entry: HistoryEntry, name: str | None, within: timedelta) -> bool:
    if source_of(stamp.entry) != source_of(entry) or abs(stamp.entry.timestamp - entry.timestamp) > within:
        return False
    if name is None:
        return True
    number = stamp.stamp.numbers.get(name)
    # What we wrote ourselves is readable, however large the balance has become.
    return number is not None and whole_number(entry.value, most=number) == number


def source_of(entry: HistoryEntry) -> tuple[str | None, str | None]:
    """Which program or person wrote an entry."""
    return entry.source_type, entry.source_id


def _reaches(entries: Sequence[HistoryEntry], value: str | None) -> bool:
    """Whether the newest entry is the present value."""
    return ((entries[-1].value or "") if entries else "") == (value or "")


def _number_entry(entry: HistoryEntry, name: str, owner: OwnStamp | None, *, most: int) -> NumberEntry:
    return NumberEntry(
        at=entry.timestamp,
        number=whole_number(entry.value, most=most) if owner is None else owner.stamp.numbers[name],
        empty=clean(entry.value) is None,
        own_rank=None if owner is None else owner.rank,
        actor=actor_of(entry),
    )


def actor_of(entry: HistoryEntry) -> str:
    """Who wrote it: the ledger keeps numbers of people and words for programs, never names."""
    if entry.updated_by_user_id is not None:
        return f"hubspot:{entry.updated_by_user_id}"
    if user := _USER.fullmatch(entry.source_id or ""):
        return f"hubspot:{user[1]}"
    source = _WORD.fullmatch(entry.source_type or "")
    return f"hubspot:{source[0].lower()}" if source else "hubspot"
