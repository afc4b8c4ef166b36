"""What must come out: every edit that either side accepted, and what the sum of them is. No database here."""

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

CREDITS = ("sj_credits", "cs_credits", "sjmini_credits", "mock_discussion_token", "shared_mock_credits")
LARGEST = 9999
TOKENS = {
    "Situational Judgment Token": "sj_credits",
    "Clinical Skills Token": "cs_credits",
    "Mini-mock Token": "sjmini_credits",
    "Mock Discussion Token": "mock_discussion_token",
    "Shared Token": "shared_mock_credits",
}
PAYS = {
    "Situational Judgment": ("sj_credits", "shared_mock_credits"),
    "Clinical Skills": ("cs_credits", "shared_mock_credits"),
    "Mini-mock": ("sjmini_credits",),
    "Mock Discussion": ("mock_discussion_token",),
}
# A steady student's credits stay above this, so that no edit of the staff ever finds too little to take away.
MARGIN = 12


@dataclass(eq=False)
class Student:
    """A contact of the portal. The balances of a `tight` one may run out under an edit."""

    hubspot_id: str
    contact_id: str
    student_id: str
    email: str
    tight: bool

    @property
    def pair(self):
        return {"student_id": self.student_id, "email": self.email}


@dataclass
class Promised:
    """A booking that was answered 201, and what was done to it since."""

    id: str
    student: Student
    exam: str
    mock_type: str
    paid: str
    key: str
    cancelled_here: bool = False
    cancelled_there: bool = False
    attended_there: bool = False
    # The staff typed Active again: whether the rules let it come back depends on when that was seen.
    unsure: bool = False

    @property
    def may_be(self):
        """The statuses it may end with."""
        if self.unsure:
            return {"Active", "Cancelled", "Completed"}
        if self.cancelled_here or self.cancelled_there:
            return {"Cancelled"}
        return {"Completed"} if self.attended_there else {"Active"}


@dataclass
class Edit:
    """One accepted change of one number."""

    at: float
    side: str
    what: str
    delta: int
    raced: bool = False


@dataclass
class Truth:
    """What is known for sure, because whoever was asked said yes."""

    first: dict[tuple[str, str], int] = field(default_factory=dict)
    numbers: dict[tuple[str, str], list[Edit]] = field(default_factory=lambda: defaultdict(list))
    bookings: dict[str, Promised] = field(default_factory=dict)
    # (kind, HubSpot id, property): every text that was typed or sent; the last one comes last.
    texts: dict[tuple[str, str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    # How long students waited for each answer.
    waited_s: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    log: object = None

    def balance(self, student, credit_type):
        """What this balance has to be once both sides know everything, live bookings' spends included."""
        key = student.hubspot_id, credit_type
        return self.first[key] + sum(each.delta for each in self.numbers[key]) - self.spent(*key)

    def spent(self, hubspot_id, credit_type):
        """What is spent on bookings that will stay."""
        return sum(
            each.student.hubspot_id == hubspot_id
            and each.paid == credit_type
            and not (each.cancelled_here or each.cancelled_there)
            for each in self.of(hubspot_id)
        )

    def of(self, hubspot_id):
        """A student's bookings."""
        return self._of.get(hubspot_id, [])

    _of: dict[str, list[Promised]] = field(default_factory=dict)

    def promise(self, booking):
        """A booking was answered 201."""
        assert booking.id not in self.bookings
        self.bookings[booking.id] = booking
        self._of.setdefault(booking.student.hubspot_id, []).append(booking)
        self.note("book", booking.student, booking=booking.id, paid=booking.paid)

    def number(self, student, credit_type, *, side, what, delta, raced=False):
        """A number was changed by this much."""
        edit = Edit(time.monotonic() - self.began, side, what, delta, raced)
        self.numbers[student.hubspot_id, credit_type].append(edit)
        self.note(what, student, type=credit_type, side=side, delta=delta, raced=raced)

    def text(self, kind, hubspot_id, name, value):
        """A text was set, on either side."""
        self.texts[kind, hubspot_id, name].append(value)
        self.note(f"{kind}.{name}", None, id=hubspot_id, value=value)

    def note(self, what, student, **more):
        """Counts an edit and writes it down."""
        self.counts[what] += 1
        if self.log is not None:
            who = student.hubspot_id if student else None
            line = {"at": round(time.monotonic() - self.began, 3), "what": what, "contact": who, **more}
            self.log.write(json.dumps(line) + "\n")
            self.log.flush()

    @property
    def edits(self):
        """How many edits were accepted on both sides."""
        return sum(self.counts.values())

    def race_rate(self):
        """Which part of the numbers typed fell between our reading and our writing."""
        typed = [e for each in self.numbers.values() for e in each if e.side == "hubspot" and e.delta]
        return sum(e.raced for e in typed) / max(1, len(typed))


def readable(text):
    """The whole number a text is, None when it is none or too large."""
    if text is None:
        return None
    whole, dot, rest = text.strip().partition(".")
    if not whole.isascii() or not whole.isdigit() or (dot and set(rest) - {"0"}):
        return None
    return int(whole) if int(whole) <= LARGEST else None


def last_number(record, credit_type):
    """The number a person who types replaces: the newest readable one of the history, else 0."""
    for entry in record["history"].get(credit_type, []):
        found = readable(entry["value"])
        if found is not None:
            return found
    return readable(record["properties"].get(credit_type)) or 0
