"""Rules of a booking: its texts, what the form asks, overlap, closing times, and when a cancellation refunds.

The database decides with the same rules in SQL; these are the reference its tests compare with, and what
pages and dry runs show.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

from tallybook.domain.catalog import MockType, Place, PrerequisiteRule, RefundRule
from tallybook.domain.errors import ValidationError

MOCK_DISCUSSION = "Mock Discussion"
"""The mock type whose derived labels old clients know by `idem_disc_`."""

_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


class BookingStatus(StrEnum):
    """Where a booking stands; live means not cancelled."""

    ACTIVE = "Active"
    COMPLETED = "Completed"
    CANCELLED = "Cancelled"

    @property
    def is_live(self) -> bool:
        """Whether it takes a seat, a day and its time."""
        return self is not BookingStatus.CANCELLED


def booking_id_text(mock_type: str, *, student_id: str | None, contact_id: UUID, on: date) -> str:
    """`{mock_type}-{student_id}-{Month D, YYYY}`; without a student id 8 hex of the contact's UUID."""
    # Month names are spelled here because strftime follows the machine's language.
    return f"{mock_type}-{student_id or contact_id.hex[:8]}-{_MONTHS[on.month - 1]} {on.day}, {on.year}"


def free_booking_id(text: str, *, taken: Collection[str]) -> str:
    """The text itself, or with the first of ` (2)`, ` (3)`, ... that no other booking has."""
    if text not in taken:
        return text
    number = 2
    while f"{text} ({number})" in taken:
        number += 1
    return f"{text} ({number})"


def derived_label(mock_type: str, *, contact_id: UUID, mock_exam_id: UUID, ordinal: int) -> str:
    """The label kept in `bookings.idempotency_key`, one for each contact, mock exam and ordinal of the two.

    `idem_` (`idem_disc_` for a Mock Discussion) and the first 32 hex digits of SHA-256 over
    `contact:mock_exam:ordinal`, ids as lower-case text.
    """
    prefix = "idem_disc_" if mock_type == MOCK_DISCUSSION else "idem_"
    return prefix + sha256(f"{contact_id}:{mock_exam_id}:{ordinal}".encode()).hexdigest()[:32]


def overlaps(
    starts_at: datetime, ends_at: datetime, *, other_starts_at: datetime, other_ends_at: datetime
) -> bool:
    """Whether two half-open intervals share an instant: back to back they do not."""
    return starts_at < other_ends_at and other_starts_at < ends_at


def booking_closes_at(mock_type: MockType, *, starts_at: datetime) -> datetime:
    """The instant from which on students can no longer book."""
    return starts_at - timedelta(minutes=mock_type.booking_closes_min)


def cancellation_closes_at(mock_type: MockType, *, starts_at: datetime) -> datetime:
    """The instant from which on students can no longer cancel or move."""
    return starts_at - timedelta(minutes=mock_type.cancellation_closes_min)


def refund_closes_at(mock_type: MockType, *, starts_at: datetime) -> datetime | None:
    """The last instant at which cancelling gives the credit back; None when time does not matter."""
    if mock_type.refund_rule is not RefundRule.BEFORE_CUTOFF:
        return None
    return starts_at - timedelta(minutes=mock_type.refund_cutoff_min)


def refunds(mock_type: MockType, *, starts_at: datetime, now: datetime, paid: bool) -> bool:
    """Whether cancelling at this moment gives a credit back; exactly at the cut-off it still does.

    `paid` says whether the booking has a spend that no refund has reversed yet.
    """
    if not paid or mock_type.refund_rule is RefundRule.NEVER:
        return False
    closes_at = refund_closes_at(mock_type, starts_at=starts_at)
    return closes_at is None or now <= closes_at


@dataclass(frozen=True, slots=True)
class CancellationPreview:
    """What pressing Cancel would do."""

    can_cancel: bool
    refunds_credit: bool
    closes_at: datetime
    refund_closes_at: datetime | None


def cancellation_preview(
    mock_type: MockType, *, status: BookingStatus, starts_at: datetime, now: datetime, paid: bool
) -> CancellationPreview:
    """What a student would get who cancels now: only an active booking, only before cancellation closes."""
    closes_at = cancellation_closes_at(mock_type, starts_at=starts_at)
    can_cancel = status is BookingStatus.ACTIVE and now < closes_at
    return CancellationPreview(
        can_cancel=can_cancel,
        refunds_credit=can_cancel and refunds(mock_type, starts_at=starts_at, now=now, paid=paid),
        closes_at=closes_at,
        refund_closes_at=refund_closes_at(mock_type, starts_at=starts_at),
    )


def prerequisites_met(
    rule: PrerequisiteRule,
    *,
    required: Collection[UUID],
    booked: Collection[UUID],
    attended: Collection[UUID],
) -> bool:
    """Whether a student may book a session with these required mock exams; nothing required is always met.

    `booked` holds the mock exams of the student's live bookings, `attended` those marked attended.
    """
    if not required:
        return True
    needs_attendance = rule in (PrerequisiteRule.ANY_ATTENDED, PrerequisiteRule.ALL_ATTENDED)
    have = set(attended if needs_attendance else booked)
    if rule in (PrerequisiteRule.ANY_BOOKED, PrerequisiteRule.ANY_ATTENDED):
        return not have.isdisjoint(required)
    return have.issuperset(required)


@dataclass(frozen=True, slots=True)
class FormAnswers:
    """What the booking form asked, `dominant_hand` true for right; None where the mock type does not ask."""

    dominant_hand: bool | None = None
    attending_location: str | None = None


_HANDS = {"right": True, "true": True, "left": False, "false": False}


def parse_form_answers(
    mock_type: MockType, *, dominant_hand: Any, attending_location: Any, places: Iterable[Place]
) -> FormAnswers:
    """The answers a mock type asks for, in one spelling; what it does not ask is ignored.

    `dominant_hand` is right or left, or true for right and false for left as old clients send it. A location
    is known by its letters and digits, so `mississauga_b9` is `Mississauga - B9`. Raises ValidationError.
    """
    return FormAnswers(
        dominant_hand=parse_hand(dominant_hand) if "dominant_hand" in mock_type.asks else None,
        attending_location=parse_location(attending_location, places=places)
        if "attending_location" in mock_type.asks
        else None,
    )


def parse_hand(value: Any) -> bool:
    """Whether the right hand is dominant. Raises ValidationError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _HANDS:
        return _HANDS[value.strip().lower()]
    raise ValidationError(
        "Choose the dominant hand: right or left.", field="dominant_hand", problem="must be right or left"
    )


def parse_location(value: Any, *, places: Iterable[Place]) -> str:
    """The place's own spelling of a location. Raises ValidationError listing the places."""
    by_letters = {_letters(place.name): place.name for place in places}
    if isinstance(value, str) and _letters(value) in by_letters:
        return by_letters[_letters(value)]
    raise ValidationError(
        f"Choose the attending location: {', '.join(by_letters.values())}.",
        field="attending_location",
        problem="missing" if value in (None, "") else "unknown place",
    )


def _letters(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))
