"""Property histories: which of HubSpot's numbers people typed, and which of them we wrote ourselves.

HubSpot has no compare-and-set. What it has is a history per property, and all values of one request share its
time and source. So an entry of a balance is our own only when a stamp of the same time and source names it:
neither a value nor a source alone proves anything, since people type the numbers we write and other programs
use our token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tallybook.domain.catalog import Catalog
from tallybook.hubspot.field_values import clean, whole_number
from tallybook.hubspot.records import HistoryEntry, Record
from tallybook.hubspot.stamps import Stamp, parse_stamp

_USER = re.compile(r"userId:([0-9]{1,20})", re.ASCII)
_WORD = re.compile(r"[A-Za-z_]{1,40}", re.ASCII)

_Origin = tuple[datetime, str | None, str | None]
_Stamps = Mapping[_Origin, Sequence[Stamp]]


@dataclass(frozen=True, slots=True)
class NumberEntry:
    """One value a balance had in HubSpot. `number` is None when the text is none; nothing is 0 and `empty`.

    `own`: one of our requests wrote it. `actor`: who did, without a name.
    """

    at: datetime
    number: int | None
    empty: bool
    own: bool
    actor: str


@dataclass(frozen=True, slots=True)
class TextEntry:
    """When a text got its present value, and whether one of our requests wrote it."""

    at: datetime
    own: bool


@dataclass(frozen=True, slots=True)
class ContactHistory:
    """The histories of a contact's mirrored properties, oldest first, by credit type and by property.

    `late`: they do not reach up to the values of the same answer yet. `stamps` are the texts of the stamps
    HubSpot still remembers.
    """

    late: bool
    balances: dict[str, tuple[NumberEntry, ...]]
    texts: dict[str, TextEntry]
    stamps: tuple[str, ...] = ()

    def to_absorb(self) -> dict[str, Any]:
        """As the database function `absorb_contacts` takes it."""
        return {
            "late": self.late,
            "stamps": self.stamps,
            "balances": {
                name: [
                    {
                        "number": each.number,
                        "empty": each.empty,
                        "at": each.at.isoformat(),
                        "own": each.own,
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
    record: Record, catalog: Catalog, *, stamp_property: str, texts: Sequence[str]
) -> ContactHistory | None:
    """The histories of a record that was read with them, else None."""
    shown = record.properties_with_history
    if shown is None:
        return None
    by_name = {name: _oldest_first(entries) for name, entries in shown.items()}
    stamps = _own_stamps(by_name.get(stamp_property, ()))
    late = not _reaches(by_name.get(stamp_property, ()), record.properties.get(stamp_property))
    balances: dict[str, tuple[NumberEntry, ...]] = {}
    for credit_type in catalog.mirrored_credit_types:
        name = credit_type.hubspot_property
        if name is None or name not in record.properties:
            continue
        entries = by_name.get(name, ())
        late = late or not _reaches(entries, record.properties[name])
        balances[credit_type.name] = tuple(
            _number_entry(each, name, stamps, most=credit_type.largest_balance) for each in entries
        )
    return ContactHistory(
        late=late,
        stamps=tuple(each.value for each in by_name.get(stamp_property, ()) if each.value),
        balances=balances,
        texts={
            name: TextEntry(entries[-1].timestamp, _origin(entries[-1]) in stamps)
            for name in texts
            if (entries := by_name.get(name, ())) and _reaches(entries, record.properties.get(name))
        },
    )


def _oldest_first(entries: Sequence[HistoryEntry]) -> tuple[HistoryEntry, ...]:
    # HubSpot shows the newest first; of one millisecond, too.
    oldest_first = entries[::-1]
    return tuple(sorted(oldest_first, key=lambda each: each.timestamp))


def _own_stamps(entries: Sequence[HistoryEntry]) -> _Stamps:
    # Two of our requests may arrive within one millisecond.
    found: dict[_Origin, list[Stamp]] = {}
    for each in entries:
        stamp = parse_stamp(each.value)
        if stamp is not None:
            found.setdefault(_origin(each), []).append(stamp)
    return found


def _origin(entry: HistoryEntry) -> _Origin:
    return entry.timestamp, entry.source_type, entry.source_id


def _reaches(entries: Sequence[HistoryEntry], value: str | None) -> bool:
    """Whether the newest entry is the present value."""
    return ((entries[-1].value or "") if entries else "") == (value or "")


def _number_entry(entry: HistoryEntry, name: str, stamps: _Stamps, *, most: int) -> NumberEntry:
    named = {stamp.numbers[name] for stamp in stamps.get(_origin(entry), ()) if name in stamp.numbers}
    # What we wrote ourselves is readable, however large the balance has become.
    number = whole_number(entry.value, most=max(most, *named, 0))
    return NumberEntry(
        at=entry.timestamp,
        number=number,
        empty=clean(entry.value) is None,
        own=number in named,
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
