"""Each race again with its guards taken away: it then breaks, so the race does meet what the guard is for.

The weakened functions sleep between reading and writing, which makes the break reliable. Each is tried up to
ten times.
"""

import pytest
from psycopg import sql

from races.barrier import at_once, changes, granting, live, open_pool, rows
from support.factories import book, cancel, make_contact, make_contacts, make_mock_exam, move

TRIES = 10

pytestmark = pytest.mark.broken_on_purpose

PAUSE = "perform pg_catalog.pg_sleep(0.01);"
LOCK = " for no key update;"
NO_SEAT_LOCK = (
    (
        "book_seat",
        "perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(v_exam_id::text, 1));",
        "",
    ),
    ("book_seat", f"where e.id = v_exam_id{LOCK}", "where e.id = v_exam_id;"),
    (
        "book_seat",
        "v_booking := tallybook.insert_booking(",
        f"{PAUSE} v_booking := tallybook.insert_booking(",
    ),
)
NO_CONTACT_LOCK = (("book_seat", f"c.archived_at is null{LOCK}", "c.archived_at is null;"),)
NO_BOOKING_LOCKS = (
    ("lock_booking", f"where c.id = v_before.contact_id{LOCK}", "where c.id = v_before.contact_id;"),
    ("lock_booking", f"order by e.id{LOCK}", "order by e.id;"),
    ("lock_booking", f"where b.id = p_booking_id{LOCK}", f"where b.id = p_booking_id; {PAUSE}"),
)
NO_KEYS = (("begin_request", "v_stored record;\nbegin", "v_stored record;\nbegin return null;"),)
SEAT_CHECK = ("alter table tallybook.mock_exams drop constraint mock_exams_seats_within_capacity",)
ONE_LIVE_BOOKING = (
    "drop index tallybook.bookings_one_live_per_exam",
    "drop index tallybook.bookings_one_live_per_day_and_type",
    "alter table tallybook.bookings drop constraint bookings_ordinal_key",
    "alter table tallybook.bookings drop constraint bookings_idempotency_key_key",
    "alter table tallybook.bookings disable trigger bookings_no_overlap_on_insert",
)
ONE_REFUND = ("alter table tallybook.credit_entries drop constraint credit_entries_reverses_entry_id_key",)
BALANCE_CHECKS = (
    "alter table tallybook.credit_balances drop constraint credit_balances_balance_is_not_negative",
    "alter table tallybook.credit_balances drop constraint credit_balances_held_within_balance",
    "alter table tallybook.credit_entries drop constraint credit_entries_balance_after_is_not_negative",
)


@pytest.fixture
async def wide(database_uri):
    """The application's way to the test's database over 32 open connections."""
    async with open_pool(database_uri) as database:
        yield database


@pytest.fixture
def weaken(superuser):
    """Rewrites functions: `await weaken(*edits)`, each (function, text, what stands there instead)."""

    async def rewrite(*edits):
        for function, text, instead in edits:
            ((definition,),) = await rows(
                superuser,
                "select pg_get_functiondef(oid) from pg_proc"
                " where pronamespace = 'tallybook'::regnamespace and proname = %s",
                function,
            )
            assert definition.count(text) == 1, f"{function} has no such guard any more: {text}"
            await superuser.execute(sql.SQL(definition.replace(text, instead)))

    return rewrite


async def until_broken(attempt, limit):
    """Repeats the race until its number passes the limit; fails when it never does."""
    for tries in range(1, TRIES + 1):
        number = await attempt()
        if number > limit:
            print(f"without the guards: {number} instead of {limit}, at try {tries}")
            return
    pytest.fail(f"the guards were gone and nothing broke in {TRIES} tries")


async def drop(superuser, statements):
    """Takes guards of the schema away."""
    for each in statements:
        await superuser.execute(each)


async def test_without_lock_and_constraint_seats_are_oversold(wide, superuser, weaken):
    """60 students get more than the five seats."""
    await weaken(*NO_SEAT_LOCK)
    await drop(superuser, SEAT_CHECK)

    async def attempt():
        exam = await make_mock_exam(wide, capacity=5)
        crowd = await make_contacts(wide, 60, credits={"sj_credits": 1})
        await at_once(*(book(wide, each, exam) for each in crowd))
        return await live(superuser, exam)

    await until_broken(attempt, 5)


async def test_without_lock_and_constraint_movers_oversell(wide, superuser, weaken):
    """Twenty who move at once get more than the five seats."""
    await weaken(*NO_BOOKING_LOCKS)
    await drop(superuser, SEAT_CHECK)

    async def attempt():
        start = await make_mock_exam(wide, capacity=20)
        goal = await make_mock_exam(wide, days=8, capacity=5)
        crowd = await make_contacts(wide, 20, credits={"sj_credits": 1})
        held = [await book(wide, each, start) for each in crowd]
        await at_once(*(move(wide, who, what, goal) for who, what in zip(crowd, held, strict=True)))
        return await live(superuser, goal)

    await until_broken(attempt, 5)


async def test_without_lock_and_constraint_one_credit_pays_twice(wide, superuser, weaken):
    """One credit books more than one of ten exams."""
    await weaken(*NO_SEAT_LOCK, *NO_CONTACT_LOCK)
    await drop(superuser, BALANCE_CHECKS)

    async def attempt():
        contact = await make_contact(wide, credits={"sj_credits": 1})
        exams = [await make_mock_exam(wide, days=day) for day in range(7, 17)]
        await at_once(*(book(wide, contact, each) for each in exams))
        return len(await changes(superuser, contact))

    await until_broken(attempt, 1)


async def test_without_locks_and_constraint_a_cancellation_refunds_twice(wide, superuser, weaken):
    """Twenty cancellations of one booking give more than the one credit back."""
    await weaken(*NO_BOOKING_LOCKS)
    await drop(superuser, ONE_REFUND)

    async def attempt():
        contact = await make_contact(wide, credits={"sj_credits": 1})
        booking = await book(wide, contact, await make_mock_exam(wide))
        await at_once(*(cancel(wide, contact, booking) for _ in range(20)))
        return [reason for _, reason in await changes(superuser, contact)].count("refund")

    await until_broken(attempt, 1)


async def test_without_keys_and_indexes_one_key_books_twice(wide, superuser, weaken):
    """Twenty requests with one key make more than one booking once nothing recognises a repetition."""
    await weaken(*NO_KEYS, *NO_SEAT_LOCK, *NO_CONTACT_LOCK)
    await drop(superuser, ONE_LIVE_BOOKING)

    async def attempt():
        contact = await make_contact(wide, credits={"sj_credits": 20})
        exam = await make_mock_exam(wide, capacity=20)
        await at_once(*(book(wide, contact, exam, key="once") for _ in range(20)))
        return await live(superuser, exam)

    await until_broken(attempt, 1)


async def test_without_keys_one_key_grants_twice(wide, superuser, weaken):
    """Nothing but the key keeps a repeated grant from counting again."""
    await weaken(*NO_KEYS)

    async def attempt():
        contact = await make_contact(wide, credits={"sj_credits": 1})
        await at_once(*(granting(wide, contact, 5, key="once") for _ in range(20)))
        return len(await changes(superuser, contact))

    await until_broken(attempt, 1)
