"""Many students, few seats: nobody is told of a seat that is not there, and no seat is lost."""

import pytest

from races.crowd import at_once, booked, booking_by, live_bookings, moving_by, rows, tally
from races.guards import (
    EXAM_LOCK_OF_BOOKING,
    EXAM_LOCK_OF_MOVING,
    SEAT_CHECK,
    TRIES,
    UNIQUE_TEXT,
)
from races.processes import crowd_of_processes
from support.factories import make_contact, make_contacts, make_mock_exam, seats_taken


async def the_ledger_of(owner, exam):
    """Seats, live bookings, entries and credits left of everybody, as numbers."""
    ((live, spent),) = await rows(
        owner,
        "select count(distinct b.id), coalesce(-sum(e.delta), 0) from tallybook.bookings b"
        " join tallybook.credit_entries e on e.booking_id = b.id"
        " where b.mock_exam_id = %s and b.status <> 'Cancelled'",
        exam.id,
    )
    ((left,),) = await rows(owner, "select sum(balance) from tallybook.credit_balances")
    return live, spent, left


async def test_400_students_for_30_seats(wide, owner):
    """30 of 400 get a seat, 370 are told that it is full, and exactly 30 credits are spent."""
    exam = await make_mock_exam(wide, capacity=30)
    crowd = await make_contacts(wide, 400, credits={"sj_credits": 1})

    told = tally(await at_once(*(booking_by(wide, each, exam) for each in crowd)))

    numbers = await the_ledger_of(owner, exam)
    print(f"400 students, 30 seats, 32 connections: {dict(told)}; live, spent, left: {numbers}")
    assert told == {"created": 30, "EXAM_FULL": 370}
    assert numbers == (30, 30, 370)
    assert await seats_taken(wide, exam) == 30


async def test_400_students_from_four_processes_for_30_seats(wide, owner, database_uri):
    """The same from four processes of the operating system: the guard is the database's, not a process's."""
    exam = await make_mock_exam(wide, capacity=30)
    crowd = await make_contacts(wide, 400, credits={"sj_credits": 1})

    told = await crowd_of_processes(4, database_uri, exam, crowd)

    numbers = await the_ledger_of(owner, exam)
    print(f"400 students, 30 seats, 4 processes: {dict(told)}; live, spent, left: {numbers}")
    assert told == {"created": 30, "EXAM_FULL": 370}
    assert numbers == (30, 30, 370)


@pytest.mark.parametrize("left", [EXAM_LOCK_OF_BOOKING, SEAT_CHECK], ids=["lock", "constraint"])
async def test_either_of_the_two_guards_of_a_seat_is_enough(wide, owner, without, left):
    """Without the lock the constraint holds, without the constraint the lock: 5 of 60, and all are told."""
    exam = await make_mock_exam(wide, capacity=5)
    crowd = await make_contacts(wide, 60, credits={"sj_credits": 1})
    await without(*({EXAM_LOCK_OF_BOOKING, SEAT_CHECK} - {left}))

    told = tally(await at_once(*(booking_by(wide, each, exam) for each in crowd)))

    assert told == {"created": 5, "EXAM_FULL": 55}
    assert await live_bookings(owner, exam=exam) == 5


@pytest.mark.broken_on_purpose
async def test_control_without_lock_and_constraint_seats_are_oversold(wide, owner, without):
    """Negative control of the two races above: more live bookings than seats."""
    await without(EXAM_LOCK_OF_BOOKING, SEAT_CHECK)
    for tries in range(1, TRIES + 1):
        exam = await make_mock_exam(wide, capacity=5)
        crowd = await make_contacts(wide, 60, credits={"sj_credits": 1})
        await at_once(*(booking_by(wide, each, exam) for each in crowd))
        live = await live_bookings(owner, exam=exam)
        if live > 5:
            print(f"without the guards: {live} bookings on 5 seats, at try {tries}")
            return
    pytest.fail("the guards were gone and nothing broke")


async def race_into_the_last_seats(wide, owner):
    """20 move into an exam with 10 seats while 20 others book it: told, and live there."""
    start, goal = await make_mock_exam(wide, capacity=20), await make_mock_exam(wide, days=8, capacity=10)
    movers = await make_contacts(wide, 20, credits={"sj_credits": 1})
    bookers = await make_contacts(wide, 20, credits={"sj_credits": 1})
    held = [await booked(wide, each, start) for each in movers]
    told = tally(
        await at_once(
            *(moving_by(wide, who, what, goal) for who, what in zip(movers, held, strict=True)),
            *(booking_by(wide, each, goal) for each in bookers),
        )
    )
    return told, await live_bookings(owner, exam=goal), await live_bookings(owner, exam=start)


async def test_moving_in_while_others_fill_the_exam(wide, owner):
    """20 movers and 20 new students for 10 seats: ten get in, and who does not move keeps the old seat."""
    told, there, behind = await race_into_the_last_seats(wide, owner)

    print(f"20 movers and 20 students for 10 seats: {dict(told)}")
    assert told["created"] + told["ok"] == 10
    assert told["EXAM_FULL"] == 30
    assert (there, behind) == (10, 20 - told["ok"])


@pytest.mark.broken_on_purpose
async def test_control_without_lock_and_constraint_movers_oversell(wide, owner, without):
    """Negative control of the race above."""
    await without(EXAM_LOCK_OF_BOOKING, EXAM_LOCK_OF_MOVING, SEAT_CHECK)
    for tries in range(1, TRIES + 1):
        _, there, _ = await race_into_the_last_seats(wide, owner)
        if there > 10:
            print(f"without the guards: {there} bookings on 10 seats, at try {tries}")
            return
    pytest.fail("the guards were gone and nothing broke")


async def race_for_one_text(wide, number):
    """Students who share one student id book the same exam at once: the texts they got."""
    exam = await make_mock_exam(wide, capacity=50)
    crowd = [await make_contact(wide, student_id="TWIN", credits={"sj_credits": 1}) for _ in range(number)]
    results = await at_once(*(booking_by(wide, each, exam) for each in crowd))
    day = f"{exam.exam_on:%B} {exam.exam_on.day}, {exam.exam_on.year}"
    return f"Situational Judgment-TWIN-{day}", sorted(each.data["booking_id"] for each in results)


async def test_two_contacts_with_one_student_id_get_different_texts(wide):
    """Two at once: one has the text, the other the text and (2)."""
    text, got = await race_for_one_text(wide, 2)

    assert got == [text, f"{text} (2)"]


async def test_twelve_contacts_with_one_student_id_get_consecutive_texts(wide):
    """No text is given twice and none is left out."""
    text, got = await race_for_one_text(wide, 12)

    assert set(got) == {text} | {f"{text} ({n})" for n in range(2, 13)}


@pytest.mark.broken_on_purpose
async def test_control_without_the_unique_text_two_bookings_share_one(wide, without):
    """Negative control of the two races above."""
    await without(UNIQUE_TEXT)
    for tries in range(1, TRIES + 1):
        _, got = await race_for_one_text(wide, 12)
        if len(set(got)) < 12:
            print(f"without the guard: {len(set(got))} texts for 12 bookings, at try {tries}")
            return
    pytest.fail("the guard was gone and nothing broke")
