"""Every refusal and failure Tallybook can name, as one tree.

A class's docstring is its default message to a person. `code` is the stable word other programs rely on;
`details` holds data that helps to act on it. HTTP statuses live in `api/`, database names in `postgres/`.

    TallybookError
    ├── Refusal                     the request cannot be granted; nothing was changed
    │   ├── ValidationError, InvalidMockType
    │   ├── Unauthenticated, LoginFailed, Forbidden, Observing, CsrfFailed
    │   ├── InsufficientCredits
    │   ├── NotFound                StudentNotFound, ContactNotFound, ExamNotFound, BookingNotFound, ...
    │   ├── Conflict                ExamFull, DuplicateBooking, TimeConflict, ...
    │   ├── IdempotencyKeyReused
    │   └── RateLimited
    ├── Unavailable                 try again later: CrmBusy, CrmUnavailable, DatabaseUnavailable, LockTimeout
    └── SetupError                  the person who runs Tallybook has to change something
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class TallybookError(Exception):
    """Something went wrong inside Tallybook. It has been logged; please try again."""

    code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, message: str | None = None, **details: Any) -> None:
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.details: Mapping[str, Any] = details
        super().__init__(self.message)


class Refusal(TallybookError):
    """The request cannot be granted. Nothing was changed."""

    code = "REFUSED"


class ValidationError(Refusal):
    """The request is not valid: see details."""

    code = "VALIDATION_ERROR"


class InvalidMockType(ValidationError):
    """There is no such mock type."""

    code = "INVALID_MOCK_TYPE"


class Unauthenticated(Refusal):
    """Please sign in: this address needs a valid token or key."""

    code = "UNAUTHENTICATED"


class LoginFailed(Unauthenticated):
    """The sign-in did not succeed. Check what you entered, or start again."""

    code = "LOGIN_FAILED"


class Forbidden(Refusal):
    """You are signed in, but this is not yours to see or do."""

    code = "FORBIDDEN"


class Observing(Forbidden):
    """Tallybook only watches: bookings and credits change in the other system. Nothing was changed."""


class CsrfFailed(Forbidden):
    """This form has expired. Reload the page and send it again."""

    code = "CSRF_FAILED"


class InsufficientCredits(Refusal):
    """There are not enough credits for this."""

    code = "INSUFFICIENT_CREDITS"


class NotFound(Refusal):
    """There is nothing at this address."""

    code = "NOT_FOUND"


class StudentNotFound(NotFound):
    """No student with this student ID and e-mail. Check both for typing errors."""

    code = "STUDENT_NOT_FOUND"


class ContactNotFound(NotFound):
    """There is no such contact."""

    code = "CONTACT_NOT_FOUND"


class ExamNotFound(NotFound):
    """There is no such mock exam."""

    code = "EXAM_NOT_FOUND"


class BookingNotFound(NotFound):
    """There is no such booking."""

    code = "BOOKING_NOT_FOUND"


class ActionNotFound(NotFound):
    """There is no such action in the catalog."""

    code = "ACTION_NOT_FOUND"


class HoldNotFound(NotFound):
    """There is no such hold."""

    code = "HOLD_NOT_FOUND"


class EntryNotFound(NotFound):
    """There is no such ledger entry."""

    code = "ENTRY_NOT_FOUND"


class MethodNotAllowed(Refusal):
    """This address exists, but not for this method."""

    code = "METHOD_NOT_ALLOWED"


class Conflict(Refusal):
    """The present state does not allow this."""

    code = "CONFLICT"


class ExamFull(Conflict):
    """This mock exam is full."""

    code = "EXAM_FULL"


class DuplicateBooking(Conflict):
    """There is already a booking for this mock exam, or for this type on the same day."""

    code = "DUPLICATE_BOOKING"


class TimeConflict(Conflict):
    """Another booking overlaps with this time."""

    code = "TIME_CONFLICT"


class ExamNotActive(Conflict):
    """This mock exam is not open for booking."""

    code = "EXAM_NOT_ACTIVE"


class ExamInPast(Conflict):
    """This mock exam has already started or is over."""

    code = "EXAM_IN_PAST"


class BookingClosed(Conflict):
    """Booking for this mock exam has closed."""

    code = "BOOKING_CLOSED"


class PrerequisiteNotMet(Conflict):
    """A prerequisite for this mock exam is missing: see details."""

    code = "PREREQUISITE_NOT_MET"


class CancellationClosed(Conflict):
    """This booking can no longer be cancelled or moved online. Please contact the staff."""

    code = "CANCELLATION_CLOSED"


class BookingNotLive(Conflict):
    """This booking is completed or cancelled and cannot be changed."""

    code = "BOOKING_NOT_LIVE"


class MockTypeMismatch(Conflict):
    """A booking can only move to a mock exam of the same type."""

    code = "MOCK_TYPE_MISMATCH"


class CapacityBelowBooked(Conflict):
    """More seats are taken than this capacity would allow."""

    code = "CAPACITY_BELOW_BOOKED"


class HasBookings(Conflict):
    """This mock exam still has live bookings."""

    code = "HAS_BOOKINGS"


class BalanceTooLow(Conflict):
    """The balance is too low for this correction."""

    code = "BALANCE_TOO_LOW"


class BalanceTooHigh(ValidationError):
    """The balance would pass the largest that the catalog allows."""


class AlreadyRefunded(Conflict):
    """This has already been refunded."""

    code = "ALREADY_REFUNDED"


class AmbiguousContact(Conflict):
    """Several contacts fit. Name one by its id."""

    code = "AMBIGUOUS_CONTACT"


class ConfirmationStale(Conflict):
    """Things changed since this was shown. Look again and confirm."""

    code = "CONFIRMATION_STALE"


class ApprovalNeeded(Conflict):
    """A second person has to approve this."""

    code = "APPROVAL_NEEDED"


class HoldClosed(Conflict):
    """This hold was captured, released, or has expired."""

    code = "HOLD_CLOSED"


class IdempotencyInProgress(Conflict):
    """The first request with this idempotency key is still running. Try again in a moment."""

    code = "IDEMPOTENCY_IN_PROGRESS"


class PayloadTooLarge(Refusal):
    """The request is too large."""

    code = "PAYLOAD_TOO_LARGE"


class UnsupportedMediaType(Refusal):
    """Send the body as application/json."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class IdempotencyKeyReused(Refusal):
    """This idempotency key was used for another request. Use a new key."""

    code = "IDEMPOTENCY_KEY_REUSED"


class RateLimited(Refusal):
    """Too many requests. Please wait a moment."""

    code = "RATE_LIMITED"


class Unavailable(TallybookError):
    """Something Tallybook needs does not answer right now. Nothing was changed; try again shortly."""

    code = "UNAVAILABLE"
    retry_after_s: int = 1

    def __init__(
        self, message: str | None = None, *, retry_after_s: int | None = None, **details: Any
    ) -> None:
        super().__init__(message, **details)
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class CrmBusy(Unavailable):
    """HubSpot is busy and this student is not stored yet. Try again in a moment."""

    code = "CRM_BUSY"
    retry_after_s = 2


class CrmUnavailable(Unavailable):
    """HubSpot does not answer and this student is not stored yet. Try again shortly."""

    code = "CRM_UNAVAILABLE"
    retry_after_s = 5


class DatabaseUnavailable(Unavailable):
    """The database does not answer. Try again shortly, a change with the same idempotency key."""

    code = "DATABASE_UNAVAILABLE"
    retry_after_s = 2


class LockTimeout(Unavailable):
    """Many people are booking at this moment. Nothing was changed; try again."""

    code = "LOCK_TIMEOUT"
    retry_after_s = 1


class SetupError(TallybookError):
    """Tallybook is not set up correctly."""

    code = "SETUP_ERROR"

    def __init__(self, message: str | None = None, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.hint = hint
