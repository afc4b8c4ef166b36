"""Contacts, mock exams and callers for tests, made through the same doors as in real life."""
# ruff: noqa: A002 - `credits` is the word of the catalog

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from uuid import UUID

from tallybook.domain.callers import Caller, CallerKind
from tallybook.domain.catalog import default_catalog
from tallybook.domain.clock import local_date
from tallybook.domain.contacts import Pair
from tallybook.domain.mock_exams import parse_session
from tallybook.hubspot.fields import RemoteContact
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.grant_credits import grant_credits

CATALOG = default_catalog()
TORONTO = "America/Toronto"
MIRRORED = tuple(each.name for each in CATALOG.mirrored_credit_types)
FIELDS = ("email", "student_id", "firstname", "lastname", "ndecc_exam_date")

_numbers = count(1)


@dataclass(frozen=True)
class Contact:
    """A stored contact."""

    id: UUID
    hubspot_id: str | None
    student_id: str | None
    email: str

    @property
    def pair(self):
        return Pair(self.student_id, self.email)


@dataclass(frozen=True)
class MockExam:
    """A stored mock exam."""

    id: UUID
    hubspot_id: str | None
    mock_type: str
    exam_on: date
    starts_at: datetime
    ends_at: datetime
    capacity: int


def remote_contact(*, hubspot_id, student_id, email, credits=None, **changes):
    """A contact as HubSpot shows it. `credits` {type: number}, other mirrored ones 0; None: no balance."""
    balances = {} if credits is None else dict.fromkeys(MIRRORED, 0) | dict(credits)
    known = {
        "hubspot_id": hubspot_id,
        "email": email,
        "student_id": student_id,
        "firstname": "Ada",
        "lastname": "Lovelace",
        "ndecc_exam_on": None,
        "balances": balances,
        "empty": frozenset(),
        "unreadable": {},
        "stamp": None,
        "tallybook_id": None,
        "updated_at": datetime.now(UTC),
        "archived": False,
        "present": frozenset((*FIELDS, *balances)),
        "notes": (),
    }
    return RemoteContact(**known | changes)


async def make_contacts(db, number, *, credits=None):
    """Many students with the same credits, absorbed as an import would; None: no balance is known."""
    remotes = []
    for _ in range(number):
        n = next(_numbers)
        remotes.append(
            remote_contact(
                hubspot_id=str(7_000_000 + n),
                student_id=str(1_700_000 + n),
                email=f"made{n}@example.com",
                credits={k: v for k, v in credits.items() if k in MIRRORED} if credits is not None else None,
            )
        )
    made = []
    for start in range(0, number, 100):
        batch = remotes[start : start + 100]
        ids = await absorb_contacts(db, batch, first_reason="import")
        made += [Contact(ids[r.hubspot_id].contact_id, r.hubspot_id, r.student_id, r.email) for r in batch]
    for contact in made:
        for name, amount in (credits or {}).items():
            if name not in MIRRORED:
                await grant(db, contact, name, amount)
    return made


async def make_contact(db, *, credits=None, student_id=None, email=None, hubspot_id=None):
    """One student. `credits` {type: number}, other mirrored ones 0; None: HubSpot has to be asked."""
    n = next(_numbers)
    remote = remote_contact(
        hubspot_id=hubspot_id or str(7_000_000 + n),
        student_id=student_id or str(1_700_000 + n),
        email=email or f"made{n}@example.com",
        credits={k: v for k, v in credits.items() if k in MIRRORED} if credits is not None else None,
    )
    ids = await absorb_contacts(db, [remote], first_reason="import")
    contact = Contact(ids[remote.hubspot_id].contact_id, remote.hubspot_id, remote.student_id, remote.email)
    for name, amount in (credits or {}).items():
        if name not in MIRRORED:
            await grant(db, contact, name, amount)
    return contact


async def make_local_contact(db, *, credits=None, student_id=None, email=None):
    """A person HubSpot has not heard of; without `student_id` no student yet."""
    n = next(_numbers)
    email = email or f"local{n}@example.com"
    async with db.connection() as connection:
        cursor = await connection.execute(
            "insert into tallybook.contacts (email, student_id) values (%s, %s) returning id",
            (email, student_id),
        )
        contact = Contact((await cursor.fetchone())[0], None, student_id, email)
    for name, amount in (credits or {}).items():
        await grant(db, contact, name, amount)
    return contact


async def grant(db, contact, credit_type, credits):
    """Adds credits (negative: takes away) as staff would."""
    if credits:
        await grant_credits(
            db,
            contact=str(contact.id),
            credit_type=credit_type,
            credits=credits,
            reason="for a test",
            actor="cli:test",
        )


async def make_mock_exam(
    db,
    *,
    mock_type="Situational Judgment",
    days=7,
    start="09:00",
    end="12:00",
    location="Mississauga",
    capacity=10,
    activation="active",
    opens_at=None,
    prerequisites=(),
    hubspot_id=None,
):
    """A mock exam `days` from today (of its place; negative: past), all its rules checked."""
    place = CATALOG.place(location)
    on = local_date(datetime.now(UTC), place.time_zone) + timedelta(days=days)
    session = parse_session(
        CATALOG,
        mock_type=mock_type,
        exam_on=on.isoformat(),
        start_time=start,
        end_time=end,
        location=location,
        capacity=capacity,
    )
    async with db.connection() as connection:
        cursor = await connection.execute(
            "insert into tallybook.mock_exams (hubspot_id, mock_type, exam_on, start_time, end_time,"
            " time_zone, starts_at, ends_at, location, capacity, activation, opens_at)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning id",
            (
                hubspot_id,
                session.mock_type,
                session.exam_on,
                session.start_time,
                session.end_time,
                session.time_zone,
                session.starts_at,
                session.ends_at,
                session.location,
                session.capacity,
                activation,
                opens_at,
            ),
        )
        (exam_id,) = await cursor.fetchone()
        for each in prerequisites:
            await connection.execute(
                "insert into tallybook.mock_exam_prerequisites (mock_exam_id, prerequisite_id)"
                " values (%s, %s)",
                (exam_id, each.id),
            )
    return MockExam(
        exam_id,
        hubspot_id,
        session.mock_type,
        session.exam_on,
        session.starts_at,
        session.ends_at,
        session.capacity,
    )


async def start_soon(db, exam, *, minutes):
    """Lets a session without bookings start in so many minutes from now; negative: it has begun."""
    async with db.connection() as connection:
        await connection.execute(
            "update tallybook.mock_exams e set starts_at = n.at, ends_at = n.at + interval '1 minute',"
            " exam_on = (n.at at time zone 'UTC')::date, time_zone = 'UTC',"
            " start_time = (n.at at time zone 'UTC')::time,"
            " end_time = (n.at at time zone 'UTC')::time + interval '1 minute'"
            " from (select clock_timestamp() + make_interval(mins => %s) as at) n where e.id = %s",
            (minutes, exam.id),
        )


def student(contact, *, epoch=1):
    """A signed-in student."""
    return Caller(
        CallerKind.STUDENT,
        f"student:{contact.id}",
        contact_id=contact.id,
        epoch=epoch,
        hubspot_id=contact.hubspot_id,
    )


def application(key_id="test", *, scopes=("students", "credits")):
    """Another program with an API key."""
    return Caller(CallerKind.APPLICATION, f"key:{key_id}", scopes=frozenset(scopes))


def pair_caller(address="192.0.2.1"):
    """The old front end, which shows a bare pair."""
    return Caller(CallerKind.PAIR, f"pair:{address}")


_NOBODY = {"contact_id": None, "epoch": None, "student_id": None, "email": None}
_UNLIMITED = {"limit_key": None, "limit_per_min": None}


def _key(contact, key, route, fingerprint):
    return {
        "credential": f"student:{contact.id}" if contact else "cli:test",
        "route": route if key else None,
        "key": key,
        "fingerprint": fingerprint if key else None,
    }


async def _ask(db, query, params):
    answer = await db.answer(query, params)
    return json.loads(answer.data) | {"_outcome": answer.outcome, "_replayed": answer.replayed}


async def book(db, contact, exam, *, key=None, fingerprint=b"1", dry_run=False, override=None):
    """Books by the deciding function; its data with `_outcome` and `_replayed`. Raises the refusal."""
    params = {
        **_NOBODY,
        **_UNLIMITED,
        "contact_id": contact.id,
        "mock_exam": str(exam.id),
        "attending_location": None,
        "dominant_hand": None,
        "actor": f"student:{contact.id}" if override is None else "cli:test",
        "override_reason": override,
        "dry_run": dry_run,
        **_key(contact, key, "POST /api/bookings/create", fingerprint),
    }
    return await _ask(db, "book_seat", params)


async def cancel(db, contact, booking, *, key=None, dry_run=False, refund=None):
    """Cancels as the student, or as staff when `contact` is None. `booking`: its answer or any id."""
    params = {
        **_NOBODY,
        **_UNLIMITED,
        "contact_id": contact.id if contact else None,
        "booking": booking["id"] if isinstance(booking, dict) else str(booking),
        "as_staff": contact is None,
        "actor": f"student:{contact.id}" if contact else "cli:test",
        "reason": None,
        "refund": refund,
        "dry_run": dry_run,
        **_key(contact, key, "DELETE /api/bookings/{id}", b"1"),
    }
    return await _ask(db, "cancel_booking", params)


async def move(db, contact, booking, exam, *, key=None, dry_run=False):
    """Moves as the student; as staff when `contact` is None."""
    params = {
        **_NOBODY,
        **_UNLIMITED,
        "contact_id": contact.id if contact else None,
        "booking": booking["id"] if isinstance(booking, dict) else str(booking),
        "mock_exam": str(exam.id),
        "as_staff": contact is None,
        "actor": f"student:{contact.id}" if contact else "cli:test",
        "dry_run": dry_run,
        **_key(contact, key, "POST /api/bookings/{id}/move", b"1"),
    }
    return await _ask(db, "move_booking", params)


async def balances(db, contact):
    """The stored balances {type: number}; a type without a row is missing."""
    async with db.connection() as connection:
        cursor = await connection.execute(
            "select credit_type, balance from tallybook.credit_balances where contact_id = %s", (contact.id,)
        )
        return dict(await cursor.fetchall())


async def seats_taken(db, exam):
    """The stored count of a session's seats."""
    async with db.connection() as connection:
        cursor = await connection.execute(
            "select total_bookings from tallybook.mock_exams where id = %s",
            (exam.id,),
        )
        return (await cursor.fetchone())[0]
