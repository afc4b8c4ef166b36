"""HubSpot's bookings as ours: status, token, answers of the form, and the two records a booking joins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tallybook.domain.bookings import BookingStatus, parse_hand, parse_location
from tallybook.domain.catalog import ADMIN_OVERRIDE, Catalog
from tallybook.domain.errors import ValidationError
from tallybook.hubspot.field_values import clean, instant, truth
from tallybook.hubspot.fields import ID_PROPERTY
from tallybook.hubspot.records import AssociatedIds, Record

BOOKING_PROPERTIES = (
    "booking_id",
    "is_active",
    "status",
    "booking_status",
    "token_used",
    "token_refunded",
    "token_refunded_at",
    "token_refund_admin",
    "attendance",
    "dominant_hand",
    "attending_location",
    "idempotency_key",
    "student_id",
    "email",
    "associated_contact_id",
    "associated_mock_exam",
    ID_PROPERTY,
)
"""What to ask HubSpot for when reading bookings."""

JOINED_BY_TEXT = ("associated_contact_id", "associated_mock_exam")
"""Where the old system wrote what a booking joins; counts where the associations do not tell."""

_MIRRORED = (
    "booking_id",
    "is_active",
    "token_used",
    "idempotency_key",
    "dominant_hand",
    "attending_location",
    "attendance",
    "token_refunded",
    "token_refunded_at",
    "token_refund_admin",
    ID_PROPERTY,
)
"""What has a counterpart here; the rest is read at the first meeting only."""

_STATUSES = {
    "active": BookingStatus.ACTIVE,
    "completed": BookingStatus.COMPLETED,
    "cancelled": BookingStatus.CANCELLED,
    "canceled": BookingStatus.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class RemoteBooking:
    """A booking as HubSpot showed it.

    `credit_type` is the type `token_used` names; None for Admin Override and for text the catalog does not
    know, which `notes` tells apart. The ids of contact and mock exam come from the associations, else from
    the old text properties. `problems` say why it can be no booking of ours. `present` names the properties
    the answer contained, `texts` has their values as the database compares them.
    """

    hubspot_id: str
    booking_id: str | None
    status: BookingStatus
    token_used: str
    credit_type: str | None
    token_refunded: bool
    token_refunded_at: datetime | None
    attendance: str | None
    dominant_hand: bool | None
    attending_location: str | None
    idempotency_key: str | None
    student_id: str | None
    email: str | None
    contact_hubspot_id: str | None
    mock_exam_hubspot_id: str | None
    tallybook_id: str | None
    created_at: datetime | None
    updated_at: datetime
    archived: bool
    present: frozenset[str]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    texts: Mapping[str, str | None]

    def to_absorb(self) -> dict[str, Any]:
        """The booking as the database function `absorb_bookings` takes it."""
        cancelled_at = self.token_refunded_at or self.updated_at
        return {
            "hubspot_id": self.hubspot_id,
            "tallybook_id": self.tallybook_id,
            "updated_at": self.updated_at.isoformat(),
            "created_at": self.created_at.isoformat() if self.created_at else None,
            "archived": self.archived,
            "texts": self.texts,
            # Whoever is marked as having come or not has been there in time.
            "status": BookingStatus.COMPLETED
            if self.status is BookingStatus.ACTIVE and self.attendance
            else self.status,
            # Without a type it cost nothing, whatever is written there: our tables know no such token.
            "token_used": self.token_used if self.credit_type else ADMIN_OVERRIDE,
            "credit_type": self.credit_type,
            "cancelled_at": cancelled_at.isoformat(),
            "attendance": self.attendance if self.status.is_live else None,
            "attending_location": self.attending_location,
            "dominant_hand": self.dominant_hand,
            "contact_hubspot_id": self.contact_hubspot_id,
            "mock_exam_hubspot_id": self.mock_exam_hubspot_id,
            "problems": self.problems,
        }


def parse_booking(record: Record, catalog: Catalog) -> RemoteBooking:
    """What a booking's record says, in our words."""
    properties = {name: clean(value) for name, value in record.properties.items()}
    problems: list[str] = []
    notes: list[str] = []
    contact_id, mock_exam_id = _joined(record, properties, problems)
    token_used, credit_type = _token(properties.get("token_used"), catalog, notes)
    attendance = _attendance(properties.get("attendance"), notes)
    hand = _hand(properties.get("dominant_hand"), notes)
    location = _location(properties.get("attending_location"), catalog)
    refunded_at = instant(properties.get("token_refunded_at"))
    readable = {
        "is_active": _STATUSES.get((properties.get("is_active") or "").lower()),
        "token_used": (token_used if credit_type else ADMIN_OVERRIDE)
        if properties.get("token_used")
        else None,
        "attendance": attendance,
        "dominant_hand": None if hand is None else str(hand).lower(),
        "attending_location": location,
        "token_refunded_at": None if refunded_at is None else str(round(refunded_at.timestamp() * 1000)),
    }
    if "token_refunded" in properties:
        # Not refunded is written in three ways; ours is nothing.
        refunded = truth(properties["token_refunded"])
        properties["token_refunded"] = (
            "true" if refunded else None if refunded is False else properties["token_refunded"]
        )
    return RemoteBooking(
        hubspot_id=record.id,
        booking_id=properties.get("booking_id"),
        status=_status(properties, notes),
        token_used=token_used,
        credit_type=credit_type,
        token_refunded=truth(properties.get("token_refunded")) is True,
        token_refunded_at=refunded_at,
        attendance=attendance,
        dominant_hand=hand,
        attending_location=location,
        idempotency_key=properties.get("idempotency_key"),
        student_id=properties.get("student_id"),
        email=properties.get("email"),
        contact_hubspot_id=contact_id,
        mock_exam_hubspot_id=mock_exam_id,
        tallybook_id=properties.get(ID_PROPERTY),
        created_at=record.created_at,
        updated_at=record.updated_at,
        archived=record.archived,
        present=frozenset(properties),
        problems=tuple(problems),
        notes=tuple(notes),
        texts={name: readable.get(name) or properties[name] for name in _MIRRORED if name in properties},
    )


def _status(properties: dict[str, str | None], notes: list[str]) -> BookingStatus:
    for name in ("is_active", "status", "booking_status"):
        text = properties.get(name)
        if text and text.lower() in _STATUSES:
            return _STATUSES[text.lower()]
        if text:
            notes.append(f"{name} {text!r} is no status")
    # A record without any status was made by hand; it takes a seat until somebody says otherwise.
    return BookingStatus.ACTIVE


def _token(text: str | None, catalog: Catalog, notes: list[str]) -> tuple[str, str | None]:
    if text is None or text.casefold() == ADMIN_OVERRIDE.casefold():
        return ADMIN_OVERRIDE, None
    credit_type = catalog.credit_type_of_token(text)
    if credit_type is None:
        notes.append(f"token_used {text!r} is not in the catalog: nothing to refund")
        return text, None
    return credit_type.token_name, credit_type.name


def _attendance(text: str | None, notes: list[str]) -> str | None:
    came = truth(text)
    if came is None and text:
        notes.append(f"attendance {text!r} is neither Yes nor No")
    return None if came is None else "Yes" if came else "No"


def _hand(text: str | None, notes: list[str]) -> bool | None:
    try:
        return parse_hand(text) if text else None
    except ValidationError:
        notes.append(f"dominant_hand {text!r} is neither right nor left")
        return None


def _location(text: str | None, catalog: Catalog) -> str | None:
    """The place in its own spelling; one the catalog does not know as it is written."""
    if text is None:
        return None
    try:
        return parse_location(text, places=catalog.places)
    except ValidationError:
        return text


def linked_ids(record: Record) -> tuple[list[str], list[str]]:
    """The HubSpot ids of the contacts and of the mock exams a booking is associated with."""
    contacts: list[str] = []
    mock_exams: list[str] = []
    # A custom type's associations come under its name, its qualified name or its id, as the portal likes:
    # what is not the contact is the mock exam, since nothing else is asked for.
    for name, found in (record.associations or {}).items():
        (contacts if name in ("contacts", "contact", "0-1") else mock_exams).extend(_ids(found))
    return contacts, mock_exams


def _joined(
    record: Record, properties: dict[str, str | None], problems: list[str]
) -> tuple[str | None, str | None]:
    """The HubSpot ids of contact and mock exam."""
    contacts, mock_exams = linked_ids(record)
    contact_id = _only("contact", contacts, properties.get("associated_contact_id"), problems)
    return contact_id, _only("mock exam", mock_exams, properties.get("associated_mock_exam"), problems)


def _ids(found: AssociatedIds) -> list[str]:
    return [item.id for item in found.results]


def _only(what: str, associated: list[str], written: str | None, problems: list[str]) -> str | None:
    different = list(dict.fromkeys(associated))
    if len(different) == 1:
        return different[0]
    if (
        written is not None
        and written.isascii()
        and written.isdigit()
        and (not different or written in different)
    ):
        return written
    problems.append(f"is associated with {len(different)} {what}s" if different else f"has no {what}")
    return None
