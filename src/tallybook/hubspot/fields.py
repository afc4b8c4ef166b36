"""HubSpot's contacts as ours: which properties are read, and what they mean.

A property that an answer did not contain is absent here too (`present` tells), never empty: what was not
asked must never be written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from tallybook.domain.catalog import Catalog
from tallybook.domain.contacts import normalise_email, normalise_student_id
from tallybook.domain.errors import ValidationError
from tallybook.hubspot.field_values import clean, day, whole_number
from tallybook.hubspot.histories import SAME_TIME, ContactHistory, parse_history
from tallybook.hubspot.records import Record
from tallybook.hubspot.stamps import parse_stamp

STAMP_PROPERTY = "tallybook_sync"
ID_PROPERTY = "tallybook_id"
MERGED_IDS_PROPERTY = "hs_merged_object_ids"
TEXT_PROPERTIES = ("email", "student_id", "firstname", "lastname", "ndecc_exam_date")
_RECORD_ID = re.compile(r"[0-9]{1,20}", re.ASCII)
_NEGATIVE = re.compile(r"-[0-9]+(?:\.0*)?", re.ASCII)


def contact_properties(catalog: Catalog) -> tuple[str, ...]:
    """What to ask HubSpot for when reading contacts; all balances always together."""
    balances = (found.hubspot_property for found in catalog.credit_types if found.hubspot_property)
    return (*TEXT_PROPERTIES, *balances, ID_PROPERTY, STAMP_PROPERTY, MERGED_IDS_PROPERTY)


def history_properties(catalog: Catalog) -> tuple[str, ...]:
    """Whose histories to ask for when own writes are unread."""
    unneeded = (ID_PROPERTY, MERGED_IDS_PROPERTY)
    return tuple(name for name in contact_properties(catalog) if name not in unneeded)


@dataclass(frozen=True, slots=True)
class RemoteContact:
    """A contact as HubSpot showed it.

    `present` names the properties the answer contained; a field whose property is not among them is None and
    means nothing. `balances` holds the numbers by credit type (empty ones as 0, also named in `empty`),
    `unreadable` the text of those that are none, by credit type. `notes` say which other values could not be
    taken and why; `unreadable_texts` holds them by property. `history` is there when it was asked for.
    `merged_ids` are the records this one was made of, the one whose values it shows first.
    """

    hubspot_id: str
    email: str | None
    student_id: str | None
    firstname: str | None
    lastname: str | None
    ndecc_exam_on: date | None
    balances: dict[str, int]
    empty: frozenset[str]
    unreadable: dict[str, str]
    stamp: str | None
    tallybook_id: str | None
    updated_at: datetime
    archived: bool
    present: frozenset[str]
    notes: tuple[str, ...]
    unreadable_texts: Mapping[str, str] = field(default_factory=dict)
    history: ContactHistory | None = None
    merged_ids: tuple[str, ...] = ()

    def to_absorb(self, *, store: bool = True) -> dict[str, Any]:
        """The contact as the database function `absorb_contacts` takes it; absent fields are left out.

        `store`: whether it becomes a contact of ours if it is none yet.
        """
        on = self.ndecc_exam_on
        texts = {
            "email": self.email,
            "student_id": self.student_id,
            "firstname": self.firstname,
            "lastname": self.lastname,
            "ndecc_exam_date": on.isoformat() if on else None,
        }
        stamp = parse_stamp(self.stamp)
        return {
            "hubspot_id": self.hubspot_id,
            "merged_ids": self.merged_ids,
            "tallybook_id": self.tallybook_id,
            "updated_at": self.updated_at.isoformat(),
            "archived": self.archived,
            "stamp": self.stamp,
            "write_no": stamp.write_no if stamp else None,
            "balances": self.balances,
            "empty": sorted(self.empty),
            "unreadable": self.unreadable,
            "negative": sorted(name for name, text in self.unreadable.items() if _NEGATIVE.fullmatch(text)),
            "texts": {
                name: text
                for name, text in texts.items()
                if name in self.present and name not in self.unreadable_texts
            },
            "unreadable_texts": dict(self.unreadable_texts),
            "store": store,
            **({"history": self.history.to_absorb()} if self.history else {}),
        }


def parse_contact(record: Record, catalog: Catalog, *, own_within: timedelta = SAME_TIME) -> RemoteContact:
    """What a contact's record says, in our words. Who read histories says how far `own_within` reaches."""
    properties = record.properties
    texts = {name: clean(properties.get(name)) for name in TEXT_PROPERTIES}
    problems: dict[str, str] = {}
    email = _normal(normalise_email, "email", texts, problems)
    student_id = _normal(normalise_student_id, "student_id", texts, problems)
    exam_on = day(texts["ndecc_exam_date"])
    if texts["ndecc_exam_date"] and exam_on is None:
        problems["ndecc_exam_date"] = "is no date"
    balances, empty, unreadable = _balances(properties, catalog)
    return RemoteContact(
        hubspot_id=record.id,
        email=email,
        student_id=student_id,
        firstname=texts["firstname"],
        lastname=texts["lastname"],
        ndecc_exam_on=exam_on,
        balances=balances,
        empty=empty,
        unreadable=unreadable,
        stamp=properties.get(STAMP_PROPERTY) or None,
        tallybook_id=clean(properties.get(ID_PROPERTY)),
        updated_at=record.updated_at,
        archived=record.archived,
        present=frozenset(properties),
        notes=tuple(f"{name} {problem}" for name, problem in problems.items()),
        unreadable_texts={name: _shown(texts[name]) for name in problems},
        history=parse_history(
            record,
            catalog,
            stamp_property=STAMP_PROPERTY,
            texts=TEXT_PROPERTIES,
            own_within=own_within,
        ),
        merged_ids=tuple(_RECORD_ID.findall(properties.get(MERGED_IDS_PROPERTY) or "")),
    )


def _balances(
    properties: Mapping[str, str | None], catalog: Catalog
) -> tuple[dict[str, int], frozenset[str], dict[str, str]]:
    balances: dict[str, int] = {}
    empty: set[str] = set()
    unreadable: dict[str, str] = {}
    for credit_type in catalog.mirrored_credit_types:
        name = credit_type.hubspot_property
        if name is None or name not in properties:
            continue
        text = properties[name]
        number = whole_number(text, most=credit_type.largest_balance)
        if number is None:
            unreadable[credit_type.name] = _shown(clean(text))
            continue
        balances[credit_type.name] = number
        if not (text or "").strip():
            empty.add(credit_type.name)
    return balances, frozenset(empty), unreadable


def _normal(
    normalise: Callable[[str], str], name: str, texts: Mapping[str, str | None], problems: dict[str, str]
) -> str | None:
    text = texts[name]
    try:
        return normalise(text) if text else None
    except ValidationError as error:
        problems[name] = str(error.details["problem"])
        return None


def _shown(text: str | None) -> str:
    """What was typed is kept for the person who resolves it, but it has to fit into a database text."""
    return (text or "")[:200]
