"""HubSpot's mock exams as ours: times in the clock of the place, and what keeps one from being a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from tallybook.domain.bookings import parse_location
from tallybook.domain.catalog import Catalog
from tallybook.domain.clock import local_instant
from tallybook.domain.errors import ValidationError
from tallybook.domain.mock_exams import LARGEST_CAPACITY, Opening, parse_mock_set
from tallybook.hubspot.field_values import clean, clock_time, day, instant, whole_number
from tallybook.hubspot.fields import ID_PROPERTY
from tallybook.hubspot.records import Record

MOCK_EXAM_PROPERTIES = (
    "mock_type",
    "mock_set",
    "exam_date",
    "start_time",
    "end_time",
    "location",
    "address",
    "capacity",
    "total_bookings",
    "is_active",
    "scheduled_activation_datetime",
    ID_PROPERTY,
)
"""What to ask HubSpot for when reading mock exams."""

SCHEDULE_PROPERTIES = ("exam_date", "start_time", "end_time", "location")
"""What says together when a mock exam takes place."""


_UNREADABLE = {
    "mock_type": "is not in the catalog",
    "mock_set": "is none of A to H",
    "capacity": "is no number of seats",
    "is_active": "is none of true, false and scheduled",
    "scheduled_activation_datetime": "is no time",
}
_NEVER_EMPTY = ("mock_type", "capacity", "is_active")


@dataclass(frozen=True, slots=True)
class RemoteMockExam:
    """A mock exam as HubSpot showed it.

    It can be a session of ours when `problems` is empty; then every field but `mock_set`, `address`,
    `opens_at` and `total_bookings` has a value. `notes` name values that were left out or changed without
    harm. `present` names the properties the answer contained. `texts` has their values as the database
    compares them, `unreadable` what is wrong with those it cannot take, `schedule_problem` what keeps date,
    times and place from being a time that exists.
    """

    hubspot_id: str
    mock_type: str | None
    mock_set: str | None
    exam_on: date | None
    start_time: time | None
    end_time: time | None
    time_zone: str
    starts_at: datetime | None
    ends_at: datetime | None
    location: str | None
    address: str | None
    capacity: int | None
    total_bookings: int | None
    activation: Opening
    opens_at: datetime | None
    tallybook_id: str | None
    created_at: datetime | None
    updated_at: datetime
    archived: bool
    present: frozenset[str]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    texts: Mapping[str, str | None]
    unreadable: Mapping[str, str]
    schedule_problem: str | None

    def to_absorb(self) -> dict[str, Any]:
        """The mock exam as the database function `absorb_mock_exams` takes it."""
        return {
            "hubspot_id": self.hubspot_id,
            "tallybook_id": self.tallybook_id,
            "updated_at": self.updated_at.isoformat(),
            "created_at": self.created_at.isoformat() if self.created_at else None,
            "archived": self.archived,
            "texts": self.texts,
            "unreadable": self.unreadable,
            "schedule": self.schedule(),
            "first": {
                "mock_type": self.mock_type,
                "mock_set": self.mock_set,
                "address": self.address,
                "capacity": self.capacity,
                "activation": self.activation,
                "opens_at": self.opens_at.isoformat() if self.opens_at else None,
            },
            "problems": self.problems,
        }

    def schedule(self) -> dict[str, Any]:
        """When and where it takes place, with the texts that say so; or why these say nothing."""
        texts = {name: self.texts[name] for name in SCHEDULE_PROPERTIES if name in self.texts}
        if self.starts_at is None or self.ends_at is None or self.schedule_problem is not None:
            return {"texts": texts, "problem": self.schedule_problem or "date or times are missing"}
        return {
            "texts": texts,
            "exam_on": self.exam_on,
            "start_time": self.start_time,
            "end_time": self.end_time,
            "time_zone": self.time_zone,
            "starts_at": self.starts_at.isoformat(),
            "ends_at": self.ends_at.isoformat(),
            "location": self.location,
        }


class _Reading:
    """One record being read: values on one side, what is wrong with them on the other."""

    def __init__(self, record: Record, catalog: Catalog, default_zone: str) -> None:
        self._properties = record.properties
        self._catalog = catalog
        self._default_zone = default_zone
        self.problems: list[str] = []
        self.notes: list[str] = []

    def text(self, name: str) -> str | None:
        return clean(self._properties.get(name))

    @property
    def mirrored(self) -> tuple[str, ...]:
        return tuple(name for name in MOCK_EXAM_PROPERTIES if name in self._properties)

    def milliseconds(self, name: str, computed: datetime | None) -> str | None:
        """An instant as HubSpot keeps it, as it is written there; of a time of day, the one it means."""
        at = instant(self.text(name)) or (computed if self.text(name) else None)
        return None if at is None else str(round(at.timestamp() * 1000))

    def instant_text(self, name: str) -> str | None:
        at = instant(self.text(name))
        return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"

    def opening_text(self) -> str | None:
        opening = Opening.from_crm_text(self.text("is_active") or "")
        return None if opening is None else opening.crm_text

    def mock_type(self) -> str | None:
        text = self.text("mock_type")
        try:
            return self._catalog.mock_type(text or "").name
        except ValidationError:
            self.problems.append(
                f"mock_type {text!r} is not in the catalog" if text else "mock_type is missing"
            )
            return None

    def place(self) -> tuple[str | None, str]:
        """Its name and time zone; an unknown place keeps its name and gets the default zone."""
        text = self.text("location")
        if text is None:
            self.problems.append("location is missing")
            return None, self._default_zone
        try:
            place = self._catalog.place(parse_location(text, places=self._catalog.places))
        except ValidationError:
            self.notes.append(f"location {text!r} is not in the catalog: taken as {self._default_zone}")
            return text, self._default_zone
        return place.name, place.time_zone

    def local_times(self, zone: str) -> tuple[date | None, time | None, time | None]:
        """Date, start and end on the clock of the place."""
        exam_on = day(self.text("exam_date"))
        if exam_on is None and self.text("exam_date"):
            self.problems.append(f"exam_date {self.text('exam_date')!r} is no date")
        start, start_on = self._time("start_time", zone)
        end, _ = self._time("end_time", zone)
        if exam_on is None:
            exam_on = start_on
        elif start_on is not None and start_on != exam_on:
            # People change the date and leave the time as it is; the date is what everybody reads.
            self.notes.append(f"start_time lies on {start_on}, exam_date on {exam_on}: exam_date counts")
        if exam_on is None and not self.text("exam_date"):
            self.problems.append("exam_date is missing")
        return exam_on, start, end

    def _time(self, name: str, zone: str) -> tuple[time | None, date | None]:
        text = self.text(name)
        found = clock_time(text, zone)
        if found is None:
            self.problems.append(f"{name} {text!r} is no time" if text else f"{name} is missing")
            return None, None
        return found

    def instant_of(self, exam_on: date | None, at: time | None, zone: str, *, field: str) -> datetime | None:
        if exam_on is None or at is None:
            return None
        try:
            return local_instant(exam_on, at, zone, field=field)
        except ValidationError as error:
            self.problems.append(f"{field}: {error.details['problem']}")
            return None

    def mock_set(self) -> str | None:
        text = self.text("mock_set")
        try:
            return parse_mock_set(text)
        except ValidationError:
            self.notes.append(f"mock_set {text!r} is none of A to H")
            return None

    def capacity(self) -> int | None:
        text = self.text("capacity")
        number = whole_number(text, most=LARGEST_CAPACITY) if text else None
        if number is None:
            self.problems.append(
                f"capacity {text!r} is no number of seats" if text else "capacity is missing"
            )
        return number

    def opening(self) -> tuple[Opening, datetime | None]:
        """What cannot be understood stays closed: an exam that opens by mistake sells seats."""
        text = self.text("is_active")
        opens_at = instant(self.text("scheduled_activation_datetime"))
        opening = Opening.from_crm_text(text or "")
        if opening is None:
            if text:
                self.notes.append(f"is_active {text!r} is taken as false")
            return Opening.INACTIVE, opens_at
        if opening is Opening.SCHEDULED and opens_at is None:
            self.notes.append("is_active is scheduled without a time: taken as false")
            return Opening.INACTIVE, None
        return opening, opens_at


def parse_mock_exam(record: Record, catalog: Catalog, *, default_zone: str) -> RemoteMockExam:
    """What a mock exam's record says, in our words; times in the clock of its place."""
    reading = _Reading(record, catalog, default_zone)
    mock_type = reading.mock_type()
    before = len(reading.problems)
    location, zone = reading.place()
    exam_on, start, end = reading.local_times(zone)
    starts_at = reading.instant_of(exam_on, start, zone, field="start_time")
    ends_at = reading.instant_of(exam_on, end, zone, field="end_time")
    if starts_at is not None and ends_at is not None and ends_at <= starts_at:
        reading.problems.append("end_time is not after start_time")
    schedule_problem = "; ".join(reading.problems[before:]) or None
    activation, opens_at = reading.opening()
    capacity = reading.capacity()
    total_text = reading.text("total_bookings")
    total_bookings = whole_number(total_text, most=LARGEST_CAPACITY) if total_text else None
    mock_set = reading.mock_set()
    readable = {
        "mock_type": mock_type,
        "mock_set": mock_set,
        "location": location,
        "exam_date": str(found) if (found := day(reading.text("exam_date"))) else None,
        "start_time": reading.milliseconds("start_time", starts_at),
        "end_time": reading.milliseconds("end_time", ends_at),
        "capacity": None if capacity is None else str(capacity),
        "total_bookings": None if total_bookings is None else str(total_bookings),
        "is_active": reading.opening_text(),
        "scheduled_activation_datetime": reading.instant_text("scheduled_activation_datetime"),
    }
    return RemoteMockExam(
        hubspot_id=record.id,
        mock_type=mock_type,
        mock_set=mock_set,
        exam_on=exam_on,
        start_time=start,
        end_time=end,
        time_zone=zone,
        starts_at=starts_at,
        ends_at=ends_at,
        location=location,
        address=reading.text("address"),
        capacity=capacity,
        total_bookings=total_bookings,
        activation=activation,
        opens_at=opens_at,
        tallybook_id=reading.text(ID_PROPERTY),
        created_at=record.created_at,
        updated_at=record.updated_at,
        archived=record.archived,
        present=frozenset(record.properties),
        problems=tuple(reading.problems),
        notes=tuple(reading.notes),
        texts={name: readable.get(name) or reading.text(name) for name in reading.mirrored},
        unreadable={
            name: problem
            for name, problem in _UNREADABLE.items()
            if name in record.properties
            and readable[name] is None
            and (name in _NEVER_EMPTY or reading.text(name))
        },
        schedule_problem=schedule_problem,
    )


def schedule_of(texts: Mapping[str, str | None], catalog: Catalog, *, default_zone: str) -> dict[str, Any]:
    """What date, times and place mean together, where they were put together from both sides."""
    record = Record(id="", updated_at=datetime.now(UTC), properties=dict(texts))
    return parse_mock_exam(record, catalog, default_zone=default_zone).schedule()
