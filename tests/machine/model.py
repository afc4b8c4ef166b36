"""What students, sessions, credits and bookings are in the simplest words, without a database."""

from collections import Counter
from dataclasses import dataclass, field

PAYS_WITH = {
    "Situational Judgment": ("sj_credits", "shared_mock_credits"),
    "Clinical Skills": ("cs_credits", "shared_mock_credits"),
}
TOKENS = {
    "sj_credits": "Situational Judgment Token",
    "cs_credits": "Clinical Skills Token",
    "shared_mock_credits": "Shared Token",
    None: "Admin Override",
}
TYPES = ("sj_credits", "cs_credits", "shared_mock_credits")


class Refused(Exception):
    """The model says no, with one of our codes."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Session:
    """A mock exam: from and to are hours of its day."""

    mock_type: str
    day: int
    start: int
    end: int
    capacity: int

    def overlaps(self, other):
        return self.day == other.day and self.start < other.end and other.start < self.end

    def same_day_and_type(self, other):
        return (self.day, self.mock_type) == (other.day, other.mock_type)


@dataclass
class Booking:
    """A booking; `paid` is the credit type it was paid with, None for an override."""

    student: int
    session: int
    paid: str | None
    live: bool = True
    given_back: str | None = None


@dataclass
class Model:
    """Everything that counts. A method that refuses has changed nothing."""

    sessions: list[Session]
    credits: dict[tuple[int, str], int]
    open: list[bool]
    bookings: list[Booking] = field(default_factory=list)
    keys: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    shown_by_hubspot: dict[tuple[int, str], int] = field(default_factory=dict)

    def seats(self):
        """Seats taken, by session."""
        taken = Counter(each.session for each in self.bookings if each.live)
        return [taken[number] for number in range(len(self.sessions))]

    def live_of(self, student, *, but=None):
        return [b for n, b in enumerate(self.bookings) if b.live and b.student == student and n != but]

    def _expect_open(self, session):
        if not self.open[session]:
            raise Refused("EXAM_NOT_ACTIVE")

    def _expect_free_time(self, student, session, *, but=None):
        wanted = self.sessions[session]
        others = [self.sessions[b.session] for b in self.live_of(student, but=but)]
        if any(other.same_day_and_type(wanted) for other in others):
            raise Refused("DUPLICATE_BOOKING")
        if any(other.overlaps(wanted) for other in others):
            raise Refused("TIME_CONFLICT")

    def _expect_seat(self, session):
        if self.seats()[session] >= self.sessions[session].capacity:
            raise Refused("EXAM_FULL")

    def paying(self, student, session):
        """The credit type that pays, None when there is none."""
        pays_with = PAYS_WITH[self.sessions[session].mock_type]
        return next((each for each in pays_with if self.credits[student, each] > 0), None)

    def book(self, student, session, *, key=None, dry_run=False, override=False):
        """(outcome, replayed, number of the booking)."""
        if key is not None and (student, key) in self.keys:
            first, number = self.keys[student, key]
            if first != session:
                raise Refused("IDEMPOTENCY_KEY_REUSED")
            return "created", True, number
        if key is None:
            for number, each in enumerate(self.bookings):
                if each.live and (each.student, each.session) == (student, session):
                    return "already", False, number
        self._expect_open(session)
        self._expect_free_time(student, session)
        paid = None if override else self.paying(student, session)
        if paid is None and not override:
            raise Refused("INSUFFICIENT_CREDITS")
        self._expect_seat(session)
        if dry_run:
            return "ok", False, None
        if paid is not None:
            self.credits[student, paid] -= 1
        self.bookings.append(Booking(student, session, paid))
        if key is not None:
            self.keys[student, key] = (session, len(self.bookings) - 1)
        return "created", False, len(self.bookings) - 1

    def _own(self, student, number):
        """The booking; `student` None is the staff."""
        if student not in {None, self.bookings[number].student}:
            raise Refused("BOOKING_NOT_FOUND")
        return self.bookings[number]

    def cancel(self, student, number, *, refund=True, dry_run=False):
        """(outcome, the credit type given back)."""
        booking = self._own(student, number)
        if not booking.live:
            return "already", booking.given_back
        back = booking.paid if refund else None
        if not dry_run:
            booking.live, booking.given_back = False, back
            if back is not None:
                self.credits[booking.student, back] += 1
        return "ok", back

    def move(self, student, number, session):
        """The outcome."""
        booking = self._own(student, number)
        if not booking.live:
            raise Refused("BOOKING_NOT_LIVE")
        if booking.session == session:
            return "already"
        if self.sessions[booking.session].mock_type != self.sessions[session].mock_type:
            raise Refused("MOCK_TYPE_MISMATCH")
        self._expect_open(session)
        self._expect_free_time(booking.student, session, but=number)
        self._expect_seat(session)
        booking.session = session
        return "ok"

    def grant(self, student, credit_type, number):
        if number == 0:
            raise Refused("VALIDATION_ERROR")
        if self.credits[student, credit_type] + number < 0:
            raise Refused("BALANCE_TOO_LOW")
        self.credits[student, credit_type] += number
        return "created"

    def edit_in_hubspot(self, student, credit_type, value):
        """HubSpot's difference to what it showed last is added; below zero stops at zero."""
        change = value - self.shown_by_hubspot[student, credit_type]
        self.credits[student, credit_type] = max(0, self.credits[student, credit_type] + change)
        self.shown_by_hubspot[student, credit_type] = value
