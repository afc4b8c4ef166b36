"""What `data` holds in each answer, for the OpenAPI document; PostgreSQL makes the JSON itself."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

Balances = Annotated[dict[str, int], Meta(description="Credits that can be spent, by credit type.")]
Instant = Annotated[datetime, Meta(tz=True)]
ClockTime = Annotated[str, Meta(pattern="^[0-2][0-9]:[0-5][0-9]$", description="In the session's time zone.")]
HubSpotId = Annotated[str | None, Meta(description="Null until HubSpot has the record.")]
EitherId = Annotated[str, Meta(description="The HubSpot id once known, else the UUID.")]


class CreditBreakdown(Struct):
    """Where the credits for this type lie."""

    specific_credits: int
    shared_credits: int
    discussion_tokens: int | UnsetType = UNSET


class CreditCheck(Struct):
    """Answered with 200 whether or not the student can book."""

    eligible: bool
    available_credits: int
    credit_breakdown: CreditBreakdown
    contact_id: str | None
    id: Annotated[UUID | None, Meta(description="The stable key; null when the student could not be stored.")]
    student_name: str | None
    ndecc_exam_date: date | None
    source: Literal["database", "cache", "hubspot"]
    as_of: Instant
    error_message: str | UnsetType = UNSET
    enrollment_id: Annotated[UnsetType | None, Meta(description="Pair mode only.")] = UNSET


class Seat(Struct, kw_only=True):
    """A seat in a session. A dry run has no ids and no token was spent yet."""

    id: UUID | UnsetType = UNSET
    booking_id: str | UnsetType = UNSET
    booking_record_id: Annotated[str | UnsetType, Meta(description="Equals booking_id.")] = UNSET
    hubspot_id: HubSpotId | UnsetType = UNSET
    mock_exam_id: EitherId
    mock_type: str
    exam_date: date
    start_time: ClockTime
    end_time: ClockTime
    time_zone: str
    starts_at: Instant
    ends_at: Instant
    location: str | None
    token_used: str


class Booked(Seat, kw_only=True):
    """A booking just made, moved or recognised. In pair mode its old camelCase names stand beside these."""

    credits_after: Balances
    idempotent: Annotated[bool | UnsetType, Meta(description="True when nothing had to be done.")] = UNSET
    dry_run: bool | UnsetType = UNSET
    moved_from_mock_exam_id: UUID | UnsetType = UNSET


class Booking(Seat, kw_only=True):
    """A booking as it stands."""

    status: Literal["Active", "Completed", "Cancelled"]
    is_active: Annotated[
        Literal["Active", "Completed", "Cancelled"], Meta(description="The old name of status.")
    ]
    mock_set: str | None
    address: str | None
    attendance: Literal["", "Yes", "No"]
    attending_location: str | None
    dominant_hand: bool | None
    created_at: Instant
    cancelled_at: Instant | None


class Pages(Struct):
    """Where this page lies."""

    current_page: int
    total_pages: int
    total_bookings: int
    has_next: bool
    has_previous: bool


class Bookings(Struct):
    """One page of bookings, and the balances."""

    bookings: list[Booking]
    pagination: Pages
    credits: Balances


class Cancellation(Struct, kw_only=True):
    """What a cancellation gave back, or would give back."""

    id: UUID
    booking_id: str
    booking_record_id: str
    hubspot_id: HubSpotId
    student_id: str | None
    cancelled_at: Instant | None
    credits_restored: int
    credit_type: str | None
    credits_after: Balances
    idempotent: bool | UnsetType = UNSET
    dry_run: bool | UnsetType = UNSET
    allowed: Annotated[bool | UnsetType, Meta(description="Only when asked beforehand.")] = UNSET
    refusal: Annotated[str | UnsetType | None, Meta(description="The code that cancelling would answer.")] = (
        UNSET
    )
    closes_at: Instant | UnsetType = UNSET


class ItemError(Struct):
    """Why one item was refused."""

    code: str
    message: str
    details: dict[str, Any] | None


class CancelledItem(Struct):
    """What became of one booking of the list."""

    booking: str
    success: bool
    data: Cancellation | UnsetType = UNSET
    error: ItemError | UnsetType = UNSET


class CancelledCount(Struct):
    """How the list went."""

    total: int
    cancelled: int
    failed: int


class CancelledBookings(Struct):
    """Each booking's result, and the balances after all of them."""

    results: list[CancelledItem]
    summary: CancelledCount
    credits_after: Balances


class Student(Struct, kw_only=True):
    """A student's profile."""

    id: UUID
    hubspot_id: HubSpotId
    contact_id: EitherId
    student_id: str | None
    email: str | None
    name: str | None
    firstname: str | None
    lastname: str | None
    ndecc_exam_date: date | None
    credits: Balances


class Session(Student, kw_only=True):
    """A token, and whom it stands for."""

    token: str
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Meta(description="Seconds.")]
    expires_at: Instant


class CodeAsked(Struct):
    """The same for every pair, known or not: send the challenge back with the code from the mail."""

    code_required: Literal[True]
    challenge: str


class NdeccDate(Struct):
    """The exam date as stored."""

    contact_id: EitherId
    id: UUID
    student_id: str | None
    email: str | None
    ndecc_exam_date: date
    updated_at: Instant


class MockExam(Struct, kw_only=True):
    """A session that can be booked."""

    mock_exam_id: EitherId
    id: UUID
    mock_type: str
    mock_set: str | None
    exam_date: date
    start_time: ClockTime
    end_time: ClockTime
    time_zone: str
    starts_at: Instant
    ends_at: Instant
    location: str | None
    address: str | None
    capacity: int
    total_bookings: int
    available_slots: int
    is_active: bool
    status: Literal["full", "limited", "available"]
    prerequisite_exam_ids: list[str]


class Capacity(Struct):
    """Seats of a session at this moment."""

    mock_exam_id: EitherId
    id: UUID
    capacity: int
    total_bookings: int
    available_slots: int
    is_full: bool
    last_checked: Instant


class Credits(Struct, kw_only=True):
    """All balances of a student. `credits` alone is the type metered actions spend."""

    user_id: UUID
    id: UUID
    credits: int | None
    balances: Balances
    held: Annotated[dict[str, int], Meta(description="Credits set aside, by credit type.")]
    source: Literal["database", "cache"]
    as_of: Instant


class Entry(Struct):
    """One row of the ledger."""

    id: int
    action: str
    credit_type: str
    delta: int
    credits_used: int
    balance_after: int
    booking_id: str | None
    created_at: Instant


class EntryPages(Struct):
    """Where this page lies."""

    page: int
    per_page: int
    total: int
    pages: int


class UsageHistory(Struct):
    """One page of the ledger, newest first."""

    data: list[Entry]
    pagination: EntryPages


class JobRun(Struct):
    """What a run of a periodic job did, and whether it got to the end."""

    counts: dict[str, int]
    duration_ms: float
    done: bool


class PaymentTaken(Struct, kw_only=True):
    """What became of a payment event; `credits` were given, or taken where negative."""

    outcome: Literal["done", "nothing_to_do"]
    contact_id: UUID | UnsetType = UNSET
    credits: int | UnsetType = UNSET


class EventsReceived(Struct):
    """What became of the events of a webhook."""

    stored: int
    repeated: Annotated[int, Meta(description="Known already.")]
    own: Annotated[int, Meta(description="Echoes of what Tallybook wrote itself.")]
    ignored: Annotated[int, Meta(description="About nothing that is mirrored.")]


class Status(Struct):
    """One word."""

    status: str


class Nothing(Struct):
    """Nothing."""
