"""Seats and bookings the old systems got wrong, each under the rule it broke."""

import asyncio
import json
from datetime import UTC, date, datetime, timedelta

import pytest

from support.factories import (
    CATALOG,
    balances,
    book,
    cancel,
    make_contact,
    make_contacts,
    make_mock_exam,
    seats_taken,
    student,
)
from tallybook.domain.errors import (
    DuplicateBooking,
    ExamFull,
    ExamInPast,
    ExamNotActive,
    LockTimeout,
    PrerequisiteNotMet,
    TallybookError,
)
from tallybook.domain.mock_exams import parse_session
from tallybook.usecases.list_bookings import list_bookings
from tallybook.usecases.list_mock_exams import list_mock_exams, show_capacity
from tallybook.usecases.set_ndecc_date import set_ndecc_date
from tallybook.usecases.show_booking import show_booking
from tallybook.usecases.show_student import show_student

# Everybody is stored, so there is nobody to ask HubSpot for.
NOBODY_IS_MISSING = None


async def _read(asking):
    return json.loads((await asking).data)


def _by(contact):
    return {"caller": student(contact), "pair": None}


async def _bookings(db, contact):
    return await _read(list_bookings(db, NOBODY_IS_MISSING, **_by(contact), filter="all", page=1, limit=50))


async def _listed(db, contact, mock_type="Situational Judgment"):
    return await _read(list_mock_exams(db, caller=student(contact), mock_type=mock_type, include_full=True))


async def test_a_seat_can_be_booked_again_right_after_cancelling(db):
    """A22: the same student, session and minute make a new booking and no error."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    exam = await make_mock_exam(db)
    first = await book(db, contact, exam)
    await cancel(db, contact, first)
    again = await book(db, contact, exam)
    assert again["_outcome"] == "created"
    assert again["id"] != first["id"]


async def test_a_retry_gets_the_first_answer(db):
    """A22: a client that did not hear the answer asks again and hears it."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    exam = await make_mock_exam(db)
    first = await book(db, contact, exam, key="k")
    again = await book(db, contact, exam, key="k")
    assert again["_replayed"]
    assert again["id"] == first["id"]
    assert (await balances(db, contact))["sj_credits"] == 1


async def test_no_lock_outlives_its_transaction(db, connect, database_uri):
    """A24: a session locked by somebody who dies is free at once."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    exam = await make_mock_exam(db)
    dying = await connect(database_uri)
    await dying.execute("begin")
    await dying.execute("select from tallybook.mock_exams where id = %s for update", (exam.id,))
    with pytest.raises(LockTimeout):
        await book(db, contact, exam)
    await dying.close()
    assert (await book(db, contact, exam))["_outcome"] == "created"


async def test_a_refused_booking_keeps_no_lock(db):
    """A24: after a refusal the next one is served without waiting."""
    poor = await make_contact(db, credits={})
    rich = await make_contact(db, credits={"mock_discussion_token": 1})
    exam = await make_mock_exam(db, mock_type="Mock Discussion")
    with pytest.raises(TallybookError):
        await book(db, poor, exam)
    assert (await book(db, rich, exam))["_outcome"] == "created"


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"activation": "inactive"}, ExamNotActive),
        (
            {"activation": "scheduled", "opens_at": datetime.now(UTC) + timedelta(days=1)},
            ExamNotActive,
        ),
        ({"days": -1}, ExamInPast),
    ],
    ids=["inactive", "scheduled", "past"],
)
async def test_what_is_not_open_cannot_be_booked_by_its_id(db, given, refusal):
    """A25: whoever knows the id of a closed session is refused all the same."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    exam = await make_mock_exam(db, **given)
    with pytest.raises(refusal):
        await book(db, contact, exam)
    assert await seats_taken(db, exam) == 0


async def test_a_discussion_asks_for_its_prerequisite_and_can_be_booked(db):
    """A26: discussions are bookable like everything else, by the rule of their prerequisites."""
    contact = await make_contact(db, credits={"sj_credits": 1, "mock_discussion_token": 1})
    required = await make_mock_exam(db)
    exam = await make_mock_exam(db, mock_type="Mock Discussion", days=8, prerequisites=[required])
    with pytest.raises(PrerequisiteNotMet):
        await book(db, contact, exam)
    await book(db, contact, required)
    assert (await book(db, contact, exam))["token_used"] == "Mock Discussion Token"


async def test_two_exams_of_a_type_on_a_day_are_one_booking_even_at_once(db):
    """A27: the duplicate check does not race, whichever sessions are meant."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    exams = [await make_mock_exam(db), await make_mock_exam(db, start="13:00", end="16:00")]
    told = await asyncio.gather(*(book(db, contact, exam) for exam in exams), return_exceptions=True)
    assert sum(isinstance(each, DuplicateBooking) for each in told) == 1
    assert (await balances(db, contact))["sj_credits"] == 1


async def test_there_is_one_number_of_seats(db, owner):
    """A29 and A31: list, capacity and the bookings themselves agree, and no write can drift it."""
    contacts = await make_contacts(db, 3, credits={"sj_credits": 1})
    exam = await make_mock_exam(db, capacity=2)
    bookings = [await book(db, contact, exam) for contact in contacts[:2]]
    with pytest.raises(ExamFull):
        await book(db, contacts[2], exam)
    await cancel(db, contacts[0], bookings[0])
    (listed,) = await _listed(db, contacts[2])
    polled = await _read(show_capacity(db, caller=student(contacts[2]), mock_exam_id=str(exam.id)))
    cursor = await owner.execute("select count(*) from tallybook.bookings where status <> 'Cancelled'")
    rows = (await cursor.fetchone())[0]
    assert listed["total_bookings"] == polled["total_bookings"] == rows == 1
    assert listed["available_slots"] == polled["available_slots"] == 1


async def test_the_ndecc_date_is_visible_at_once(db):
    """A39: what was stored is what the next look shows."""
    contact = await make_contact(db, credits={})
    on = datetime.now(UTC).date() + timedelta(days=90)
    await set_ndecc_date(
        db, NOBODY_IS_MISSING, **_by(contact), ndecc_exam_date=on, time_zone="America/Toronto"
    )
    shown = await _read(show_student(db, NOBODY_IS_MISSING, **_by(contact)))
    assert shown["ndecc_exam_date"] == on.isoformat()


async def test_no_list_is_stale_after_booking_and_cancelling(db):
    """A40: bookings, credits and free seats are those of this moment."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    exam = await make_mock_exam(db, capacity=5)
    for status, credit, free in (("Active", 0, 4), ("Cancelled", 1, 5)):
        if status == "Active":
            booking = await book(db, contact, exam)
        else:
            await cancel(db, contact, booking)
        shown = await _bookings(db, contact)
        assert [each["status"] for each in shown["bookings"]] == [status]
        assert shown["credits"]["sj_credits"] == credit
        assert [each["available_slots"] for each in await _listed(db, contact)] == [free]


async def test_looking_changes_nothing(db, owner):
    """A41: reading bookings and sessions writes nothing, here or to HubSpot."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    exam = await make_mock_exam(db)
    booking = await book(db, contact, exam)

    async def written():
        cursor = await owner.execute(
            "select (select json_agg(b) from tallybook.bookings b)::text,"
            " (select json_agg(o) from tallybook.outbox o)::text,"
            " (select json_agg(e) from tallybook.mock_exams e)::text,"
            " (select count(*) from tallybook.audit_log)"
        )
        return await cursor.fetchone()

    before = await written()
    await _bookings(db, contact)
    await _listed(db, contact)
    await show_booking(db, NOBODY_IS_MISSING, **_by(contact), booking=booking["id"])
    await show_student(db, NOBODY_IS_MISSING, **_by(contact))
    assert await written() == before


async def test_a_booking_can_be_looked_at(db):
    """A42: the detail of one's own booking is an answer."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    booking = await book(db, contact, await make_mock_exam(db))
    shown = await _read(show_booking(db, NOBODY_IS_MISSING, **_by(contact), booking=booking["booking_id"]))
    assert (shown["id"], shown["status"]) == (booking["id"], "Active")


async def test_more_than_twenty_sessions_are_listed(db):
    """A45: a list has everything that is open."""
    contact = await make_contact(db, credits={})
    for number in range(25):
        await make_mock_exam(db, mock_type="Mock Discussion", days=5 + number)
    assert len(await _listed(db, contact, "Mock Discussion")) == 25


@pytest.mark.parametrize(("on", "hour"), [(date(2027, 1, 15), 14), (date(2027, 7, 15), 13)])
def test_nine_in_toronto_is_another_instant_in_summer(on, hour):
    """A45: the offset is the place's on that day, and not one number all year."""
    session = parse_session(
        CATALOG,
        mock_type="Situational Judgment",
        exam_on=on.isoformat(),
        start_time="09:00",
        end_time="12:00",
        location="Mississauga",
        capacity=1,
    )
    assert session.starts_at == datetime(on.year, on.month, on.day, hour, tzinfo=UTC)
