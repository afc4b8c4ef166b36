"""Rules of a mock exam: when it is open, how full it looks, and what a new session must be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import StrEnum

from tallybook.domain.catalog import Catalog
from tallybook.domain.clock import local_instant, parse_date, parse_time
from tallybook.domain.contacts import is_clean
from tallybook.domain.errors import ValidationError

LARGEST_CAPACITY = 1000
FEW_SEATS = 3
_LONGEST_ADDRESS = 500
_MOCK_SET = re.compile("[A-H]")


class Opening(StrEnum):
    """Whether a mock exam can be booked. Stored and computed alike."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    SCHEDULED = "scheduled"

    @property
    def crm_text(self) -> str:
        """The word for it in HubSpot's `is_active`."""
        return {"active": "true", "inactive": "false", "scheduled": "scheduled"}[self.value]

    @classmethod
    def from_crm_text(cls, text: str) -> Opening | None:
        """The opening that HubSpot's `is_active` means; None for text that means none."""
        words = {"true": cls.ACTIVE, "active": cls.ACTIVE, "false": cls.INACTIVE, "inactive": cls.INACTIVE}
        return {**words, "scheduled": cls.SCHEDULED}.get(text.strip().lower())


def opening_at(stored: Opening, *, opens_at: datetime | None, now: datetime) -> Opening:
    """The opening now: a scheduled mock exam is active from its minute on, whether or not a job ran."""
    if stored is Opening.SCHEDULED and opens_at is not None and opens_at <= now:
        return Opening.ACTIVE
    return stored


class SeatStatus(StrEnum):
    """How full a mock exam looks in a list."""

    FULL = "full"
    LIMITED = "limited"
    AVAILABLE = "available"


def seat_status(*, capacity: int, total_bookings: int) -> SeatStatus:
    """Full without a free seat, limited with at most three, available otherwise."""
    free = capacity - total_bookings
    if free <= 0:
        return SeatStatus.FULL
    return SeatStatus.LIMITED if free <= FEW_SEATS else SeatStatus.AVAILABLE


@dataclass(frozen=True, slots=True)
class Session:
    """A mock exam that can take place: every value checked, instants computed."""

    mock_type: str
    mock_set: str | None
    exam_on: date
    start_time: time
    end_time: time
    time_zone: str
    starts_at: datetime
    ends_at: datetime
    location: str
    address: str | None
    capacity: int


def parse_session(
    catalog: Catalog,
    *,
    mock_type: str,
    exam_on: str,
    start_time: str,
    end_time: str,
    location: str,
    capacity: int,
    mock_set: str | None = None,
    address: str | None = None,
) -> Session:
    """A new session from what a person entered.

    Raises InvalidMockType, or ValidationError naming the first field that is wrong: a date or time that does
    not exist (also where the clocks change), an end not after the start, an unknown place, a capacity that is
    not 1 to 1000.
    """
    kind, place = catalog.mock_type(mock_type), catalog.place(location)
    on = parse_date(exam_on, field="exam_date")
    start, end = parse_time(start_time, field="start_time"), parse_time(end_time, field="end_time")
    starts_at = local_instant(on, start, place.time_zone, field="start_time")
    ends_at = local_instant(on, end, place.time_zone, field="end_time")
    if ends_at <= starts_at or end <= start:
        raise ValidationError(
            "The end must be after the start.", field="end_time", problem="not after the start"
        )
    return Session(
        mock_type=kind.name,
        mock_set=parse_mock_set(mock_set),
        exam_on=on,
        start_time=start,
        end_time=end,
        time_zone=place.time_zone,
        starts_at=starts_at,
        ends_at=ends_at,
        location=place.name,
        address=parse_address(address),
        capacity=check_capacity(capacity),
    )


def check_capacity(capacity: int) -> int:
    """The capacity itself when it is 1 to 1000. Raises ValidationError otherwise."""
    if isinstance(capacity, bool) or not 1 <= capacity <= LARGEST_CAPACITY:
        raise ValidationError(
            f"The capacity must be from 1 to {LARGEST_CAPACITY}.",
            field="capacity",
            problem=f"must be from 1 to {LARGEST_CAPACITY}",
        )
    return capacity


def parse_mock_set(text: str | None) -> str | None:
    """A letter A to H, or None for none. Raises ValidationError."""
    letter = (text or "").strip().upper()
    if not letter:
        return None
    if not _MOCK_SET.fullmatch(letter):
        raise ValidationError(
            "The mock set must be a letter A to H.", field="mock_set", problem="must be A to H"
        )
    return letter


def parse_address(text: str | None) -> str | None:
    """An address on one line of at most 500 visible characters, or None for none. Raises ValidationError."""
    address = " ".join((text or "").split())
    if not address:
        return None
    if len(address) > _LONGEST_ADDRESS or not is_clean(address):
        problem = f"must be at most {_LONGEST_ADDRESS} visible characters"
        raise ValidationError(f"The address {problem}.", field="address", problem=problem)
    return address
