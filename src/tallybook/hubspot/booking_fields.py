"""HubSpot's bookings as ours: status, token, answers of the form, and the two records a booking joins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tallybook.domain.bookings import BookingStatus, parse_hand
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
    the answer contained.
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


def parse_booking(record: Record, catalog: Catalog) -> RemoteBooking:
    """What a booking's record says, in our words."""
    properties = {name: clean(value) for name, value in record.properties.items()}
    problems: list[str] = []
    notes: list[str] = []
    contact_id, mock_exam_id = _joined(record, properties, problems)
    token_used, credit_type = _token(properties.get("token_used"), catalog, notes)
    return RemoteBooking(
        hubspot_id=record.id,
        booking_id=properties.get("booking_id"),
        status=_status(properties, notes),
        token_used=token_used,
        credit_type=credit_type,
        token_refunded=truth(properties.get("token_refunded")) is True,
        token_refunded_at=instant(properties.get("token_refunded_at")),
        attendance=_attendance(properties.get("attendance"), notes),
        dominant_hand=_hand(properties.get("dominant_hand"), notes),
        attending_location=properties.get("attending_location"),
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


def _joined(
    record: Record, properties: dict[str, str | None], problems: list[str]
) -> tuple[str | None, str | None]:
    """The HubSpot ids of contact and mock exam."""
    contacts: list[str] = []
    mock_exams: list[str] = []
    # A custom type's associations come under its name, its qualified name or its id, as the portal likes:
    # what is not the contact is the mock exam, since nothing else is asked for.
    for name, found in (record.associations or {}).items():
        (contacts if name in ("contacts", "contact", "0-1") else mock_exams).extend(_ids(found))
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
