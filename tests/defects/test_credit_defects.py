"""Credits the old systems lost or made up, each under the rule it broke."""

import asyncio
import json

import psycopg
import pytest

from support.factories import (
    balances,
    book,
    cancel,
    grant,
    make_contact,
    make_contacts,
    make_mock_exam,
    seats_taken,
    student,
)
from tallybook.domain.errors import BalanceTooLow, DatabaseUnavailable, InsufficientCredits
from tallybook.postgres.pool import Database
from tallybook.usecases.cancel_booking import cancel_as_staff
from tallybook.usecases.cancel_bookings import cancel_bookings
from tallybook.usecases.show_credits import show_credits, usage_history

# Everybody is stored, so there is nobody to ask HubSpot for.
NOBODY_IS_MISSING = None


async def _or_refusal(asking):
    try:
        return await asking
    except InsufficientCredits as no:
        return no.code


async def _history(db, contact):
    answer = await usage_history(
        db, NOBODY_IS_MISSING, caller=student(contact), pair=None, page=1, per_page=100, action_filter=None
    )
    return json.loads(answer.data)


async def test_one_credit_pays_one_of_two_exams_booked_at_once(db):
    """A13: the balance is never a number the program computed before."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    exams = [await make_mock_exam(db, days=day) for day in (7, 8)]
    told = await asyncio.gather(*(_or_refusal(book(db, contact, exam)) for exam in exams))
    assert told.count("INSUFFICIENT_CREDITS") == 1
    assert (await balances(db, contact))["sj_credits"] == 0
    assert sum([await seats_taken(db, exam) for exam in exams]) == 1


async def test_a_cancellation_beside_a_booking_loses_neither(db):
    """A13: what happens at once to one balance adds up."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    exams = [await make_mock_exam(db, days=day) for day in (7, 8)]
    first = await book(db, contact, exams[0])
    await asyncio.gather(cancel(db, contact, first), book(db, contact, exams[1]))
    assert (await balances(db, contact))["sj_credits"] == 1


async def test_no_balance_goes_below_zero(db, owner):
    """A13: neither a correction nor plain SQL makes it -1."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    with pytest.raises(BalanceTooLow):
        await grant(db, contact, "sj_credits", -2)
    for balance in (-1, 5):
        with pytest.raises(psycopg.errors.RestrictViolation):
            await owner.execute(
                "update tallybook.credit_balances set balance = %s where contact_id = %s",
                (balance, contact.id),
            )
    assert (await balances(db, contact))["sj_credits"] == 1


async def test_cancelling_twice_at_once_gives_one_credit_and_one_seat_back(db):
    """A14: whoever flips the booking refunds; everybody after gets the same answer without effect."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    exam = await make_mock_exam(db)
    booking = await book(db, contact, exam)
    told = await asyncio.gather(*(cancel(db, contact, booking) for _ in range(6)))
    assert sorted(each["_outcome"] for each in told) == ["already"] * 5 + ["ok"]
    assert {(each["credit_type"], each["credits_restored"]) for each in told} == {("sj_credits", 1)}
    assert (await balances(db, contact))["sj_credits"] == 1
    assert await seats_taken(db, exam) == 0


async def test_booking_a_discussion_leaves_the_other_balances_alone(db):
    """A15: one balance changes, and the other four are not sent as zeros."""
    contact = await make_contact(
        db,
        credits={
            "sj_credits": 3,
            "cs_credits": 4,
            "sjmini_credits": 5,
            "mock_discussion_token": 1,
            "shared_mock_credits": 6,
        },
    )
    before = await balances(db, contact)
    await book(db, contact, await make_mock_exam(db, mock_type="Mock Discussion"))
    assert await balances(db, contact) == before | {"mock_discussion_token": 0}


@pytest.mark.parametrize("mock_type", ["Situational Judgment", "Clinical Skills"])
async def test_the_staff_refund_a_shared_token_as_a_shared_token(db, mock_type):
    """A16 and A17: the credit that was spent comes back, and the rest of its balance stays."""
    contact = await make_contact(db, credits={"shared_mock_credits": 3})
    booking = await book(db, contact, await make_mock_exam(db, mock_type=mock_type))
    assert booking["token_used"] == "Shared Token"
    answer = await cancel_as_staff(
        db, booking=booking["id"], actor="cli:test", reason="for a test", refund=True
    )
    assert json.loads(answer.data)["credit_type"] == "shared_mock_credits"
    assert (await balances(db, contact))["shared_mock_credits"] == 3


async def test_two_refunds_of_one_contact_in_a_batch_add_two(db):
    """A18: each booking brings its own credit back."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    bookings = [await book(db, contact, await make_mock_exam(db, days=day)) for day in (7, 8)]
    await cancel_bookings(
        db,
        NOBODY_IS_MISSING,
        caller=student(contact),
        pair=None,
        bookings=[each["id"] for each in bookings],
    )
    assert (await balances(db, contact))["sj_credits"] == 2


async def test_what_the_student_cancelled_the_staff_do_not_refund_again(db):
    """A19: the staff decide from the booking itself, not from an older copy of it."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    booking = await book(db, contact, await make_mock_exam(db))
    await cancel(db, contact, booking)
    answer = await cancel_as_staff(
        db, booking=booking["id"], actor="cli:test", reason="for a test", refund=True
    )
    assert answer.outcome == "already"
    assert (await balances(db, contact))["sj_credits"] == 1


async def test_two_corrections_at_once_both_count(db):
    """A23: staff add to a balance; they do not overwrite it from a page that is out of date."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    await asyncio.gather(*(grant(db, contact, "sj_credits", number) for number in (2, 3, -1)))
    assert (await balances(db, contact))["sj_credits"] == 5


async def test_a_balance_that_cannot_be_read_is_an_error_and_stays(db, database_uri):
    """B3: a failed read is no zero, so nothing is computed from it."""
    contact = await make_contact(db, credits={"sj_credits": 7})
    away = Database(database_uri.replace("/test_", "/no_such_test_"))
    with pytest.raises(DatabaseUnavailable):
        await show_credits(away, NOBODY_IS_MISSING, caller=student(contact), pair=None)
    await away.close()
    assert (await balances(db, contact))["sj_credits"] == 7


async def test_two_credits_pay_two_of_ten_at_once(db):
    """B4: check, work and deduction are one decision."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    exams = [await make_mock_exam(db, days=7 + number) for number in range(10)]
    told = await asyncio.gather(*(_or_refusal(book(db, contact, exam)) for exam in exams))
    assert told.count("INSUFFICIENT_CREDITS") == 8
    assert (await balances(db, contact))["sj_credits"] == 0


async def test_the_history_explains_the_balance(db):
    """B11: every change is an entry, so history and balance say the same."""
    contact, _ = await make_contacts(db, 2, credits={"sj_credits": 2})
    exam = await make_mock_exam(db)
    await cancel(db, contact, await book(db, contact, exam))
    await book(db, contact, exam)
    await grant(db, contact, "sj_credits", 4)
    entries = (await _history(db, contact))["data"]
    assert sum(each["delta"] for each in entries if each["credit_type"] == "sj_credits") == 5
    assert (await balances(db, contact))["sj_credits"] == 5
