"""What students, sessions, credits and bookings are in the simplest words, without a database."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date
from uuid import UUID

from tallybook.domain.bookings import BookingStatus, booking_id_text, free_booking_id, prerequisites_met
from tallybook.domain.catalog import default_catalog
from tallybook.domain.credits import paying_credit

KINDS = {each.name: each for each in default_catalog().mock_types}
TOKENS = {each.name: each.token_name for each in default_catalog().credit_types} | {None: "Admin Override"}
TYPES = ("sj_credits", "cs_credits", "shared_mock_credits", "mock_discussion_token")
OPEN = {"active", "opened"}


class Refused(Exception):
    """The model says no, with one of our codes."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Session:
    """A mock exam: from and to are hours of its day, a day below zero is over; `needs` are other sessions."""

    mock_type: str
    day: int
    start: int
    end: int
    capacity: int
    opening: str = "active"
    needs: tuple[int, ...] = ()

    @property
    def past(self):
        return self.day < 0

    def overlaps(self, other):
        return self.day == other.day and self.start < other.end and other.start < self.end

    def same_day_and_type(self, other):
        return (self.day, self.mock_type) == (other.day, other.mock_type)


@dataclass(frozen=True)
class Student:
    """A student and the epoch their sessions are bound to."""

    contact_id: UUID
    student_id: str
    epoch: int = 1


@dataclass
class Booking:
    """A booking; `paid` is the credit type it was paid with, None for an override."""

    student: int
    session: int
    paid: str | None
    text: str
    status: BookingStatus = BookingStatus.ACTIVE
    given_back: str | None = None

    @property
    def live(self):
        return self.status.is_live


@dataclass
class Model:
    """Everything that counts. A method that refuses has changed nothing."""

    sessions: list[Session]
    dates: list[date]
    students: list[Student]
    credits: dict[tuple[int, str], int]
    bookings: list[Booking] = field(default_factory=list)
    # (student, route, key): the request it came with first.
    keys: dict[tuple[int, str, str], object] = field(default_factory=dict)
    shown_by_hubspot: dict[tuple[int, str], int] = field(default_factory=dict)

    def seats(self):
        """Seats taken, by session."""
        taken = Counter(each.session for each in self.bookings if each.live)
        return [taken[number] for number in range(len(self.sessions))]

    def live_of(self, student, *, but=None):
        return [b for n, b in enumerate(self.bookings) if b.live and b.student == student and n != but]

    def _expect_session(self, epoch, student):
        if student is not None and epoch is not None and epoch != self.students[student].epoch:
            raise Refused("UNAUTHENTICATED")

    def replays(self, student, route, key, request):
        """Whether this is a repeat; the same key with another request is refused."""
        if key is None or (student, route, key) not in self.keys:
            return False
        if self.keys[student, route, key] != request:
            raise Refused("IDEMPOTENCY_KEY_REUSED")
        return True

    def _remember(self, student, route, key, request):
        if key is not None:
            self.keys[student, route, key] = request

    def _expect_open(self, session):
        if self.sessions[session].opening not in OPEN:
            raise Refused("EXAM_NOT_ACTIVE")
        if self.sessions[session].past:
            raise Refused("EXAM_IN_PAST")

    def _expect_free_time(self, student, session, *, but=None):
        wanted = self.sessions[session]
        others = [self.sessions[b.session] for b in self.live_of(student, but=but)]
        if any(other.same_day_and_type(wanted) for other in others):
            raise Refused("DUPLICATE_BOOKING")
        if any(other.overlaps(wanted) for other in others):
            raise Refused("TIME_CONFLICT")

    def _expect_prerequisites(self, student, session):
        live = self.live_of(student)
        if not prerequisites_met(
            KINDS[self.sessions[session].mock_type].prerequisite_rule,
            required=set(self.sessions[session].needs),
            booked={each.session for each in live},
            attended={each.session for each in live if each.status is BookingStatus.COMPLETED},
        ):
            raise Refused("PREREQUISITE_NOT_MET")

    def _expect_seat(self, session):
        if self.seats()[session] >= self.sessions[session].capacity:
            raise Refused("EXAM_FULL")

    def paying(self, student, session):
        """The credit type that pays, None when there is none."""
        pays_with = KINDS[self.sessions[session].mock_type].pays_with
        return paying_credit(pays_with, {each: self.credits[student, each] for each in pays_with})

    def _text(self, student, session):
        who = self.students[student]
        text = booking_id_text(
            self.sessions[session].mock_type,
            student_id=who.student_id,
            contact_id=who.contact_id,
            on=self.dates[session],
        )
        return free_booking_id(text, taken={each.text for each in self.bookings})

    def book(self, student, session, *, key=None, epoch=None, dry_run=False, override=False):
        """(outcome, number of the booking); the number None where there is none yet."""
        self._expect_session(epoch, student)
        key = None if dry_run else key
        if self.replays(student, "book", key, session):
            return "created", None
        if key is None:
            for number, each in enumerate(self.bookings):
                if each.live and (each.student, each.session) == (student, session):
                    return "already", number
        self._expect_open(session)
        self._expect_free_time(student, session)
        if not override:
            self._expect_prerequisites(student, session)
        paid = None if override else self.paying(student, session)
        if paid is None and not override:
            raise Refused("INSUFFICIENT_CREDITS")
        self._expect_seat(session)
        if dry_run:
            return "ok", None
        if paid is not None:
            self.credits[student, paid] -= 1
        self.bookings.append(Booking(student, session, paid, self._text(student, session)))
        self._remember(student, "book", key, session)
        return "created", len(self.bookings) - 1

    def _own(self, student, number):
        """The booking; `student` None is the staff."""
        if student not in {None, self.bookings[number].student}:
            raise Refused("BOOKING_NOT_FOUND")
        return self.bookings[number]

    def cancel(self, student, number, *, key=None, epoch=None, refund=True):
        """(outcome, the credit type given back)."""
        self._expect_session(epoch, student)
        booking = self._own(student, number)
        if self.replays(student, "cancel", key, number):
            return "replayed", None
        if booking.live:
            self.expect_cancellable(student, booking)
        outcome = "ok" if booking.live else "already"
        if booking.live:
            booking.status = BookingStatus.CANCELLED
            booking.given_back = booking.paid if refund else None
            if booking.given_back is not None:
                self.credits[booking.student, booking.given_back] += 1
        self._remember(student, "cancel", key, number)
        return outcome, booking.given_back

    def expect_cancellable(self, student, booking):
        """A live booking that the student (None: the staff) may still cancel."""
        if student is not None and booking.status is BookingStatus.COMPLETED:
            raise Refused("BOOKING_NOT_LIVE")
        if student is not None and self.sessions[booking.session].past:
            raise Refused("CANCELLATION_CLOSED")

    def preview(self, student, number):
        """(refusal or None, the credit type that would be given back)."""
        booking = self._own(student, number)
        if not booking.live:
            return "BOOKING_NOT_LIVE", booking.given_back
        try:
            self.expect_cancellable(student, booking)
        except Refused as no:
            return no.code, None
        return None, booking.paid

    def move(self, student, number, session, *, key=None, dry_run=False):
        """The outcome."""
        booking = self._own(student, number)
        request = (number, session)
        if self.replays(booking.student, "move", key, request):
            return "replayed"
        if not booking.live or (student is not None and booking.status is BookingStatus.COMPLETED):
            raise Refused("BOOKING_NOT_LIVE")
        if booking.session == session:
            self._remember(booking.student, "move", key, request)
            return "already"
        if self.sessions[booking.session].mock_type != self.sessions[session].mock_type:
            raise Refused("MOCK_TYPE_MISMATCH")
        if student is not None and self.sessions[booking.session].past:
            raise Refused("CANCELLATION_CLOSED")
        self._expect_open(session)
        self._expect_free_time(booking.student, session, but=number)
        if student is not None:
            self._expect_prerequisites(booking.student, session)
        self._expect_seat(session)
        if not dry_run:
            booking.session = session
            self._remember(booking.student, "move", key, request)
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

    def change(self, session, **changes):
        self.sessions[session] = replace(self.sessions[session], **changes)

    def sign_out(self, student):
        self.students[student] = replace(self.students[student], epoch=self.students[student].epoch + 1)
