"""Fills the demo: students through the real import, sessions of every type, a key and a staff account."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tallybook.api.secrets import hash_api_secret
from tallybook.domain.bookings import booking_id_text
from tallybook.domain.callers import Caller, CallerKind
from tallybook.domain.clock import local_date
from tallybook.domain.contacts import Pair
from tallybook.domain.mock_exams import Session, parse_session
from tallybook.domain.staff import StaffRole
from tallybook.usecases.create_mock_exam import create_mock_exam
from tallybook.usecases.create_staff import create_staff
from tallybook.usecases.import_contacts import ImportResult
from tallybook.usecases.import_portal import import_portal
from tallybook.usecases.import_records import Imported
from tallybook.usecases.keys import create_key, find_key
from tallybook.usecases.list_bookings import list_bookings
from tallybook.usecases.list_mock_exams import list_mock_exams
from tallybook.wiring import Parts

if TYPE_CHECKING:
    from tallybook.cli.demo import DemoSecrets

_ACTOR = "demo"
_KEY_ID = "demo"
_STAFF = "staff@example.com"
_STUDENT = Pair("1599000", "student0@example.com")
_MOCK_TYPE = "Situational Judgment"
_WEEKS = 6
# (type, weekday, start, end, place, capacity, sets): two of everything a week, at different places.
_SCHEDULE = (
    ("Situational Judgment", 1, "09:00", "12:00", "Mississauga", 30, "AB"),
    ("Situational Judgment", 3, "13:00", "16:00", "Calgary", 24, "CD"),
    ("Clinical Skills", 2, "08:30", "13:30", "Mississauga - Lab D", 12, "AC"),
    ("Clinical Skills", 5, "09:00", "14:00", "Vancouver", 10, "BD"),
    ("Mini-mock", 0, "18:00", "20:00", "Online", 40, ""),
    ("Mini-mock", 4, "10:00", "12:00", "Richmond Hill", 16, ""),
    ("Mock Discussion", 3, "18:30", "20:00", "Online", 20, "EF"),
    ("Mock Discussion", 6, "11:00", "12:30", "Montreal", 8, "GH"),
)


@dataclass(frozen=True, slots=True)
class Filled:
    """What the introduction shows."""

    api_key: str
    staff_email: str
    student_id: str
    student_email: str
    mock_type: str
    mock_exam_id: str
    next_booking_id: str
    idempotency_key: str


class _OpenSession(msgspec.Struct):
    mock_exam_id: str
    exam_date: date


class _Booking(msgspec.Struct):
    booking_id: str
    mock_exam_id: str
    status: str
    exam_date: date


class _Bookings(msgspec.Struct):
    bookings: list[_Booking]


async def fill(parts: Parts, kept: DemoSecrets, *, console: Console) -> Filled:
    """Makes what is missing; what is there stays."""
    await _import_students(parts, console)
    await _create_sessions(parts)
    await _create_staff(parts, kept.staff_password)
    await _create_key(parts, kept)
    return await _introduce(parts, kept)


async def _import_students(parts: Parts, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("Importing", total=None)

        def show(of: str, shown: ImportResult | Imported) -> None:
            progress.update(task, description=f"Importing {of}", completed=shown.read, total=shown.total)

        result = (await import_portal(parts.mirror, on_progress=show)).contacts
    share = 100 * result.with_any_credits / max(1, result.students)
    console.print(
        f"[dim]Imported {result.students:,} students in {result.duration_s:.1f} s. "
        f"Contacts with any credits: {result.with_any_credits:,} ({share:.1f} %)[/dim]"
    )


async def _create_sessions(parts: Parts) -> None:
    if await _open_sessions(parts):
        return
    today = local_date(datetime.now(UTC), parts.settings.tallybook_time_zone)
    for session in _sessions(parts, today):
        await create_mock_exam(parts.db, session=session, actor=_ACTOR)


def _sessions(parts: Parts, today: date) -> Iterator[Session]:
    monday = today - timedelta(days=today.weekday())
    for week in range(1, _WEEKS + 1):
        for mock_type, weekday, start, end, location, capacity, sets in _SCHEDULE:
            on = monday + timedelta(weeks=week, days=weekday)
            yield parse_session(
                parts.catalog,
                mock_type=mock_type,
                exam_on=on.isoformat(),
                start_time=start,
                end_time=end,
                location=location,
                capacity=capacity,
                mock_set=sets[week % len(sets)] if sets else None,
            )


async def _create_staff(parts: Parts, password: str) -> None:
    await create_staff(
        parts.db, email=_STAFF, name="Demo", role=StaffRole.SUPER_ADMIN, password=password, actor=_ACTOR
    )


async def _create_key(parts: Parts, kept: DemoSecrets) -> None:
    if await find_key(parts.db, _KEY_ID) is None:
        hashed = hash_api_secret(kept.secret_key, key_id=_KEY_ID, secret=kept.api_key_secret)
        await create_key(
            parts.db,
            key_id=_KEY_ID,
            name="demo",
            secret_hash=hashed,
            scopes=("credits", "students"),
            expires_at=None,
            actor=_ACTOR,
        )


async def _open_sessions(parts: Parts) -> list[_OpenSession]:
    answer = await list_mock_exams(
        parts.db, caller=Caller(CallerKind.CLI, _ACTOR), mock_type=_MOCK_TYPE, include_full=False
    )
    return msgspec.json.decode(answer.data, type=list[_OpenSession])


async def _introduce(parts: Parts, kept: DemoSecrets) -> Filled:
    """Chooses a session the student has not booked, so that the printed lines work at every start."""
    answer = await list_bookings(
        parts.db,
        parts.students,
        caller=Caller(CallerKind.CLI, _ACTOR),
        pair=_STUDENT,
        filter="all",
        page=1,
        limit=100,
    )
    booked = msgspec.json.decode(answer.data, type=_Bookings).bookings
    used = {booking.exam_date for booking in booked}
    sessions = await _open_sessions(parts)
    session = next((each for each in sessions if each.exam_date not in used), sessions[0])
    return Filled(
        api_key=f"tb_{_KEY_ID}_{kept.api_key_secret}",
        staff_email=_STAFF,
        student_id=_STUDENT.student_id,
        student_email=_STUDENT.email,
        mock_type=_MOCK_TYPE,
        mock_exam_id=session.mock_exam_id,
        next_booking_id=booking_id_text(
            _MOCK_TYPE, student_id=_STUDENT.student_id, contact_id=UUID(int=0), on=session.exam_date
        ),
        idempotency_key=f"try-{secrets.token_hex(4)}",
    )
