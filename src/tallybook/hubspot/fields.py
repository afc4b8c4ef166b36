"""HubSpot's contacts as ours: which properties are read, and what they mean.

A property that an answer did not contain is absent here too (`present` tells), never empty: what was not
asked must never be written.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from tallybook.domain.catalog import Catalog
from tallybook.domain.contacts import normalise_email, normalise_student_id
from tallybook.domain.errors import ValidationError
from tallybook.hubspot.field_values import clean, day, whole_number
from tallybook.hubspot.records import Record

STAMP_PROPERTY = "tallybook_sync"
ID_PROPERTY = "tallybook_id"
_CONTACT_FIELDS = ("email", "student_id", "firstname", "lastname", "ndecc_exam_date")


def contact_properties(catalog: Catalog) -> tuple[str, ...]:
    """What to ask HubSpot for when reading contacts; all balances always together."""
    balances = (found.hubspot_property for found in catalog.credit_types if found.hubspot_property)
    return (*_CONTACT_FIELDS, *balances, ID_PROPERTY, STAMP_PROPERTY)


@dataclass(frozen=True, slots=True)
class RemoteContact:
    """A contact as HubSpot showed it.

    `present` names the properties the answer contained; a field whose property is not among them is None and
    means nothing. `balances` holds the numbers by credit type (empty ones as 0, also named in `empty`),
    `unreadable` the text of those that are none, by credit type. `notes` say which other values could not be
    taken and why.
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

    def to_absorb(self) -> dict[str, Any]:
        """The contact as the database function `absorb_contacts` takes it; absent fields are left out."""
        fields = {
            "email": self.email,
            "student_id": self.student_id,
            "firstname": self.firstname,
            "lastname": self.lastname,
        }
        known: dict[str, Any] = {name: value for name, value in fields.items() if name in self.present}
        if "ndecc_exam_date" in self.present:
            known["ndecc_exam_on"] = self.ndecc_exam_on.isoformat() if self.ndecc_exam_on else None
        return {
            **known,
            "hubspot_id": self.hubspot_id,
            "updated_at": self.updated_at.isoformat(),
            "stamp": self.stamp,
            "archived": self.archived,
            "balances": self.balances,
            "empty": sorted(self.empty),
            "unreadable": self.unreadable,
        }


def parse_contact(record: Record, catalog: Catalog) -> RemoteContact:
    """What a contact's record says, in our words."""
    properties = record.properties
    notes: list[str] = []
    student_id = clean(properties.get("student_id"))
    email = clean(properties.get("email"))
    exam_text = clean(properties.get("ndecc_exam_date"))
    exam_on = day(exam_text)
    if exam_text and exam_on is None:
        notes.append("ndecc_exam_date is no date")
    balances, empty, unreadable = _balances(properties, catalog)
    return RemoteContact(
        hubspot_id=record.id,
        email=_email(email, notes),
        student_id=_student_id(student_id, notes),
        firstname=clean(properties.get("firstname")),
        lastname=clean(properties.get("lastname")),
        ndecc_exam_on=exam_on,
        balances=balances,
        empty=empty,
        unreadable=unreadable,
        stamp=properties.get(STAMP_PROPERTY) or None,
        tallybook_id=clean(properties.get(ID_PROPERTY)),
        updated_at=record.updated_at,
        archived=record.archived,
        present=frozenset(properties),
        notes=tuple(notes),
    )


def _balances(
    properties: dict[str, str | None], catalog: Catalog
) -> tuple[dict[str, int], frozenset[str], dict[str, str]]:
    balances: dict[str, int] = {}
    empty: set[str] = set()
    unreadable: dict[str, str] = {}
    for credit_type in catalog.mirrored_credit_types:
        if credit_type.hubspot_property not in properties:
            continue
        text = properties[credit_type.hubspot_property]
        number = whole_number(text, most=credit_type.largest_balance)
        if number is None:
            # What was typed is kept for the person who resolves it, but it has to fit into a database text.
            unreadable[credit_type.name] = (clean(text) or "")[:200]
            continue
        balances[credit_type.name] = number
        if not (text or "").strip():
            empty.add(credit_type.name)
    return balances, frozenset(empty), unreadable


def _email(text: str | None, notes: list[str]) -> str | None:
    try:
        return normalise_email(text) if text else None
    except ValidationError as error:
        notes.append(f"email {error.details['problem']}")
        return None


def _student_id(text: str | None, notes: list[str]) -> str | None:
    try:
        return normalise_student_id(text) if text else None
    except ValidationError as error:
        notes.append(f"student_id {error.details['problem']}")
        return None
