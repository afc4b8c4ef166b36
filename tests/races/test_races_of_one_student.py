"""One student, or one booking, many requests at once: one of them does it, the others hear about it."""

import random

import pytest

from races.crowd import at_once, booked, booking_by, cancelling_by, ledger, live_bookings, moving_by, tally
from races.guards import (
    BALANCE_CHECKS,
    BOOKING_LOCKS,
    CONTACT_LOCK_OF_BOOKING,
    CONTACT_LOCK_OF_OVERLAP,
    DAY_INDEX,
    EXAM_INDEX,
    EXAM_LOCK_OF_BOOKING,
    ONE_REFUND_PER_SPEND,
    OVERLAP_CHECK,
    TRIES,
)
from support.factories import balances, make_contact, make_mock_exam, seats_taken


async def race_of_ten_exams(wide):
    """A student with one credit books ten exams on ten days at once: what was told, and who."""
    exams = [await make_mock_exam(wide, days=7 + n) for n in range(10)]
    ada = await make_contact(wide, credits={"sj_credits": 1})
    return tally(await at_once(*(booking_by(wide, ada, each) for each in exams))), ada


async def test_one_credit_for_ten_exams_at_once(wide, owner):
    """One credit buys one seat: nine requests hear that credits are missing."""
    told, ada = await race_of_ten_exams(wide)

    print(f"1 credit, 10 exams: {dict(told)}")
    assert told == {"created": 1, "INSUFFICIENT_CREDITS": 9}
    assert await live_bookings(owner, contact=ada) == 1
    assert await ledger(owner, ada) == [(-1, "booking")]


async def test_without_the_contacts_lock_the_balance_still_refuses(wide, owner, without):
    """The second guard alone: one credit still buys one seat; only the words are worse."""
    await without(CONTACT_LOCK_OF_BOOKING, CONTACT_LOCK_OF_OVERLAP)

    told, ada = await race_of_ten_exams(wide)

    assert told["created"] == 1
    assert set(told) <= {"created", "INSUFFICIENT_CREDITS", "BALANCE_TOO_LOW"}
    assert await live_bookings(owner, contact=ada) == 1


@pytest.mark.broken_on_purpose
async def test_control_without_lock_and_checks_one_credit_is_spent_twice(wide, without):
    """Negative control of the two races above: a balance below zero."""
    await without(CONTACT_LOCK_OF_BOOKING, CONTACT_LOCK_OF_OVERLAP, BALANCE_CHECKS)
    for tries in range(1, TRIES + 1):
        told, ada = await race_of_ten_exams(wide)
        left = (await balances(wide, ada))["sj_credits"]
        if left < 0:
            print(f"without the guards: {told['created']} bookings for one credit, at try {tries}")
            return
    pytest.fail("the guards were gone and nothing broke")


async def race_of_cancellations(wide):
    """One booking is cancelled 20 times at once: the answers, the student and the exam."""
    exam, ada = await make_mock_exam(wide), await make_contact(wide, credits={"sj_credits": 3})
    booking = await booked(wide, ada, exam)
    return await at_once(*(cancelling_by(wide, ada, booking) for _ in range(20))), ada, exam


async def test_one_booking_cancelled_twenty_times_at_once(wide, owner):
    """One refund and one seat back; nineteen get the same answer without effect."""
    results, ada, exam = await race_of_cancellations(wide)

    told = tally(results)
    print(f"20 cancellations: {dict(told)}")
    assert told == {"ok": 1, "already": 19}
    assert {each.data["credits_restored"] for each in results} == {1}
    assert sum(each.data.get("idempotent", False) for each in results) == 19
    assert await ledger(owner, ada) == [(-1, "booking"), (1, "refund")]
    assert await seats_taken(wide, exam) == 0


@pytest.mark.broken_on_purpose
async def test_control_without_locks_and_unique_refund_one_spend_is_refunded_twice(wide, owner, without):
    """Negative control of the race above."""
    await without(BOOKING_LOCKS, ONE_REFUND_PER_SPEND)
    for tries in range(1, TRIES + 1):
        _, ada, _ = await race_of_cancellations(wide)
        refunds = (await ledger(owner, ada)).count((1, "refund"))
        if refunds > 1:
            print(f"without the guards: {refunds} refunds of one spend, at try {tries}")
            return
    pytest.fail("the guards were gone and nothing broke")


async def race_of_clicks(wide):
    """The same booking is asked for 20 times at once, without a key: the answers and the student."""
    exam, ada = await make_mock_exam(wide), await make_contact(wide, credits={"sj_credits": 20})
    return await at_once(*(booking_by(wide, ada, exam) for _ in range(20))), ada


async def test_twenty_clicks_without_a_key_make_one_booking(wide, owner):
    """A double click is recognised by state: nineteen get the booking of the first."""
    results, ada = await race_of_clicks(wide)

    told = tally(results)
    print(f"20 clicks: {dict(told)}")
    assert told == {"created": 1, "already": 19}
    assert len({each.data["id"] for each in results}) == 1
    assert await ledger(owner, ada) == [(-1, "booking")]


@pytest.mark.broken_on_purpose
async def test_control_without_lock_and_indexes_a_double_click_books_twice(wide, owner, without):
    """Negative control of the race above."""
    await without(
        CONTACT_LOCK_OF_BOOKING, CONTACT_LOCK_OF_OVERLAP, OVERLAP_CHECK, DAY_INDEX, EXAM_INDEX,
        EXAM_LOCK_OF_BOOKING,
    )  # fmt: skip
    for tries in range(1, TRIES + 1):
        _, ada = await race_of_clicks(wide)
        live = await live_bookings(owner, contact=ada)
        if live > 1:
            print(f"without the guards: {live} bookings of one student in one exam, at try {tries}")
            return
    pytest.fail("the guards were gone and nothing broke")


async def race_of_one_day(wide):
    """Six exams of one type on one day, one after the other, are booked at once."""
    exams = [
        await make_mock_exam(wide, start=f"{8 + 2 * n:02}:00", end=f"{9 + 2 * n:02}:00") for n in range(6)
    ]
    ada = await make_contact(wide, credits={"sj_credits": 6})
    return tally(await at_once(*(booking_by(wide, ada, each) for each in exams))), ada


async def test_one_booking_of_a_type_on_a_day(wide, owner):
    """One wins; the others hear that this type is booked on that date."""
    told, ada = await race_of_one_day(wide)

    print(f"6 exams of one type on one day: {dict(told)}")
    assert told == {"created": 1, "DUPLICATE_BOOKING": 5}
    assert await live_bookings(owner, contact=ada) == 1


async def test_without_the_contacts_lock_the_index_of_the_day_still_refuses(wide, owner, without):
    """The second guard alone gives the same answers."""
    await without(CONTACT_LOCK_OF_BOOKING, CONTACT_LOCK_OF_OVERLAP)

    told, ada = await race_of_one_day(wide)

    assert told == {"created": 1, "DUPLICATE_BOOKING": 5}
    assert await live_bookings(owner, contact=ada) == 1


@pytest.mark.broken_on_purpose
async def test_control_without_lock_and_index_a_day_is_booked_twice(wide, owner, without):
    """Negative control of the two races above."""
    await without(CONTACT_LOCK_OF_BOOKING, CONTACT_LOCK_OF_OVERLAP, DAY_INDEX)
    for tries in range(1, TRIES + 1):
        _, ada = await race_of_one_day(wide)
        live = await live_bookings(owner, contact=ada)
        if live > 1:
            print(f"without the guards: {live} bookings of one type on one day, at try {tries}")
            return
    pytest.fail("the guards were gone and nothing broke")


async def race_of_one_hour(wide):
    """Four exams of four types at the same time are booked at once."""
    exams = [
        await make_mock_exam(wide, mock_type=name)
        for name in ("Situational Judgment", "Clinical Skills", "Mini-mock", "Mock Discussion")
    ]
    ada = await make_contact(
        wide,
        credits={"sj_credits": 1, "cs_credits": 1, "sjmini_credits": 1, "mock_discussion_token": 1},
    )
    return tally(await at_once(*(booking_by(wide, ada, each) for each in exams))), ada


async def test_nobody_sits_in_two_exams_at_the_same_time(wide, owner):
    """One of four overlapping exams is booked; three are told of the conflict."""
    told, ada = await race_of_one_hour(wide)

    print(f"4 overlapping exams: {dict(told)}")
    assert told == {"created": 1, "TIME_CONFLICT": 3}
    assert await live_bookings(owner, contact=ada) == 1


@pytest.mark.broken_on_purpose
async def test_control_without_the_contacts_lock_bookings_overlap(wide, owner, without):
    """Negative control of the race above: looking alone does not help."""
    await without(CONTACT_LOCK_OF_BOOKING, CONTACT_LOCK_OF_OVERLAP)
    for tries in range(1, TRIES + 1):
        _, ada = await race_of_one_hour(wide)
        live = await live_bookings(owner, contact=ada)
        if live > 1:
            print(f"without the guards: {live} bookings at one time, at try {tries}")
            return
    pytest.fail("the guards were gone and nothing broke")


async def race_over_one_booking(wide, round_number):
    """One booking is cancelled, moved and booked anew at once: results and the student."""
    here, there = await make_mock_exam(wide), await make_mock_exam(wide, days=8)
    ada = await make_contact(wide, credits={"sj_credits": 5})
    booking = await booked(wide, ada, here)
    askings = [
        *(("cancel", cancelling_by(wide, ada, booking)) for _ in range(4)),
        *(("move", moving_by(wide, ada, booking, there)) for _ in range(4)),
        *(("book", booking_by(wide, ada, here)) for _ in range(4)),
    ]
    # Who is released first is first at the database more often than not.
    random.Random(round_number).shuffle(askings)
    results = await at_once(*(asking for _, asking in askings))
    told = {"cancel": [], "move": [], "book": []}
    for (what, _), result in zip(askings, results, strict=True):
        told[what].append(result)
    return *told.values(), ada, booking


async def test_cancel_move_and_book_of_one_booking_follow_one_another(wide, owner):
    """Whatever the order was: one refund of the booking, no move after it, at most one booking a day."""
    seen = set()
    for number in range(12):
        cancelled, moved, again, ada, booking = await race_over_one_booking(wide, number)
        assert tally(cancelled) == {"ok": 1, "already": 3}
        assert tally(moved)["ok"] <= 1
        assert set(tally(moved)) <= {"ok", "already", "BOOKING_NOT_LIVE", "DUPLICATE_BOOKING"}
        assert set(tally(again)) <= {"created", "already"}
        new = {each.data["id"] for each in again if each.word == "created"}
        changes = await ledger(owner, ada)
        assert changes.count((1, "refund")) == 1
        assert changes.count((-1, "booking")) == 1 + len(new)
        assert await live_bookings(owner, contact=ada) == len(new - {booking["id"]})
        seen.add((tally(moved)["ok"], len(new)))
    print(f"cancel, move and book of one booking: (moves, new bookings) seen: {sorted(seen)}")


@pytest.mark.broken_on_purpose
async def test_control_without_the_locks_a_cancelled_booking_is_moved(wide, owner, without):
    """Negative control of the race above: several requests find the booking live and flip or move it."""
    await without(BOOKING_LOCKS, ONE_REFUND_PER_SPEND)
    for tries in range(1, TRIES + 1):
        cancelled, moved, _, ada, _ = await race_over_one_booking(wide, tries)
        wrong = tally(cancelled)["ok"] > 1 or tally(moved)["ok"] > 1
        if wrong or (await ledger(owner, ada)).count((1, "refund")) > 1:
            print(f"without the guards: {tally(cancelled)}, {tally(moved)}, at try {tries}")
            return
    pytest.fail("the guards were gone and nothing broke")
