"""What each student address takes, with the old names and fields of the former front end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from tallybook.api.reading import Shape

StudentId = Annotated[
    str, Meta(min_length=1, max_length=64, description="Together with `email`: the student.")
]
Email = Annotated[str, Meta(min_length=1, max_length=320, examples=["ada@example.org"])]
AnyId = Annotated[
    str, Meta(min_length=1, max_length=200, description="A UUID, a HubSpot id or a booking_id.")
]
ExamId = Annotated[str, Meta(min_length=1, max_length=64, description="A UUID or a HubSpot id.")]
MockTypeName = Annotated[str, Meta(min_length=1, max_length=100, examples=["Situational Judgment"])]
Reason = Annotated[str, Meta(max_length=500)]
PageNumber = Annotated[int, Meta(ge=1, le=1_000_000)]
PageSize = Annotated[int, Meta(ge=1, le=100)]

# The old pages put a time or a flag behind each GET so that no cache would answer.
_CACHE_BUSTERS = frozenset(("_t", "force", "realtime"))
_OLD_BOOKING_FIELDS = frozenset(
    (
        "contact_id",
        "enrollment_id",
        "exam_date",
        "exam_type",
        "name",
        "mock_type",
        "mock_set",
        "location",
        "start_time",
        "end_time",
        "token_used",
    )
)


class Paired(Shape, frozen=True, kw_only=True):
    """The student a request is about. A signed-in student need not say it; nobody else's is accepted."""

    student_id: StudentId | None = None
    email: Email | None = None


class LoginBody(Paired, frozen=True, kw_only=True):
    """First student ID and e-mail; then, where a code is mailed, the challenge and the code."""

    challenge: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    code: Annotated[str, Meta(min_length=1, max_length=16)] | None = None


class PairBody(Paired, frozen=True, kw_only=True):
    """Nothing but, where needed, the student."""


class NdeccDateBody(Paired, frozen=True, kw_only=True):
    """The date of the student's NDECC exam, today or later."""

    ndecc_exam_date: date


class ValidateCreditsBody(Paired, frozen=True, kw_only=True):
    """May this student book a mock exam of this type?"""

    superfluous: ClassVar[frozenset[str]] = frozenset(("contact_id", "enrollment_id", "mock_exam_id"))
    aliases: ClassVar[Mapping[str, str]] = {"examType": "mock_type"}

    mock_type: MockTypeName


class ValidateDiscussionBody(Paired, frozen=True, kw_only=True):
    """May this student book a mock discussion?"""

    superfluous: ClassVar[frozenset[str]] = frozenset(
        ("contact_id", "enrollment_id", "mock_exam_id", "mock_type")
    )


class CreateBookingBody(Paired, frozen=True, kw_only=True):
    """Book a seat. What a mock type asks for (place, dominant hand) is in the catalog."""

    superfluous: ClassVar[frozenset[str]] = _OLD_BOOKING_FIELDS

    mock_exam_id: ExamId
    attending_location: Annotated[str, Meta(max_length=100)] | None = None
    dominant_hand: Annotated[
        bool | Annotated[str, Meta(max_length=20)] | None, Meta(description="true or right; false or left")
    ] = None
    dry_run: bool = False


class CreateDiscussionBody(Paired, frozen=True, kw_only=True):
    """Book a seat in a mock discussion."""

    superfluous: ClassVar[frozenset[str]] = _OLD_BOOKING_FIELDS | {"discussion_format", "topic_preference"}

    mock_exam_id: ExamId
    dry_run: bool = False


class CancelBody(Paired, frozen=True, kw_only=True):
    """Cancel a booking, with a reason for the staff if you like."""

    multiline: ClassVar[frozenset[str]] = frozenset(("reason",))

    reason: Reason | None = None


class BatchCancelBody(Paired, frozen=True, kw_only=True):
    """Cancel several of one's own bookings; each is reported."""

    multiline: ClassVar[frozenset[str]] = frozenset(("reason",))

    booking_ids: Annotated[list[AnyId], Meta(min_length=1, max_length=50)]
    reason: Reason | None = None


class MoveBody(Paired, frozen=True, kw_only=True):
    """Move a booking to another mock exam of the same type."""

    mock_exam_id: ExamId
    dry_run: bool = False


class PairQuery(Paired, frozen=True, kw_only=True):
    """Nothing but, where needed, the student."""

    superfluous: ClassVar[frozenset[str]] = _CACHE_BUSTERS


class AvailableQuery(Shape, frozen=True, kw_only=True):
    """Mock exams of one type that can be booked."""

    superfluous: ClassVar[frozenset[str]] = _CACHE_BUSTERS | {"student_id", "email"}

    mock_type: MockTypeName
    include_capacity: Annotated[bool, Meta(description="Also those that are full.")] = False


class DiscussionsQuery(Shape, frozen=True, kw_only=True):
    """Mock discussions that can be booked."""

    superfluous: ClassVar[frozenset[str]] = _CACHE_BUSTERS | {"student_id", "email", "mock_type"}

    include_capacity: Annotated[bool, Meta(description="Also those that are full.")] = False


class CapacityQuery(Shape, frozen=True, kw_only=True):
    """Nothing."""

    superfluous: ClassVar[frozenset[str]] = _CACHE_BUSTERS | {"student_id", "email"}


class ListBookingsQuery(Paired, frozen=True, kw_only=True):
    """Which bookings, and which page of them."""

    superfluous: ClassVar[frozenset[str]] = _CACHE_BUSTERS

    filter: Literal["all", "upcoming", "past"] = "all"
    page: PageNumber = 1
    limit: PageSize = 20


class CreditsQuery(Paired, frozen=True, kw_only=True):
    """`refresh=true` asks for the database's own figures, past any cache."""

    superfluous: ClassVar[frozenset[str]] = frozenset(("_t",))

    refresh: bool = False


class UsageHistoryQuery(Paired, frozen=True, kw_only=True):
    """Which entries, and which page of them."""

    superfluous: ClassVar[frozenset[str]] = frozenset(("_t",))

    page: PageNumber = 1
    per_page: PageSize = 20
    action_filter: Annotated[str, Meta(max_length=100)] | None = None


class CronQuery(Shape, frozen=True, kw_only=True):
    """How long the job may take before it stops at a good point."""

    max_s: Annotated[float, Meta(ge=1, le=300)] = 50.0
