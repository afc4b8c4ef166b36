"""Pushing goes on while students book: nothing goes out twice, nobody waits for it, none deadlocks."""

import asyncio
import random
from collections import Counter

import psycopg

from support.factories import balances, book, cancel
from support.push_world import BOOKING, CONTACT, MOCK_EXAM
from tallybook.domain.errors import TallybookError
from tallybook.domain.mirror import MirroredType
from tallybook.jobs.push_changes import run_push
from tallybook.postgres.pool import Database
from tallybook.usecases.outbox import Claim, claim
from tallybook.usecases.push_changes import push_batch


async def busy_students(db, contacts, exams, *, rounds, seed=7):
    """Students book and cancel at random; how many of their requests had which outcome."""
    outcomes = Counter()

    async def one(number, contact):
        dice = random.Random(seed * 1000 + number)
        for _ in range(rounds):
            try:
                booking = await book(db, contact, dice.choice(exams))
                outcomes["booked"] += 1
                if dice.random() < 0.5:
                    await cancel(db, contact, booking)
                    outcomes["cancelled"] += 1
            except TallybookError as error:
                outcomes[error.code] += 1

    await asyncio.gather(*(one(*each) for each in enumerate(contacts)))
    return outcomes


async def test_workers_who_claim_at_once_share_nothing(world):
    exam = await world.exam(capacity=400)
    contacts = await world.students(250, credits={"sj_credits": 1})
    for contact in contacts:
        await book(world.db, contact, exam)

    claims = await asyncio.gather(*(claim(world.db, CONTACT, linger_s=0) for _ in range(8)))

    taken = [id_ for each in claims if isinstance(each, Claim) for id_ in each.ids]
    assert len(taken) == len(set(taken)) == 250


async def test_pushing_among_busy_students_deadlocks_nowhere_and_ends_with_both_sides_equal(
    world, wide, deadlocks, database_uri
):
    exams = [await world.exam(capacity=100, days=days, mirrored=False) for days in range(7, 13)]
    contacts = await world.students(24, credits={"sj_credits": 4})
    stop = asyncio.Event()
    others = Database(database_uri, size=16)
    mirrors = [world.mirror, world.over(others)]
    running = [asyncio.create_task(run_push(mirror, stop)) for mirror in mirrors]

    async def typing():
        for number in range(20):
            contact = contacts[number % len(contacts)]
            shown = await world.properties(CONTACT, contact.hubspot_id)
            await world.edit(
                CONTACT, contact.hubspot_id, cs_credits=str(int(shown.get("cs_credits") or 0) + 1)
            )
            await asyncio.sleep(0.05)

    outcomes, _ = await asyncio.gather(busy_students(wide, contacts, exams, rounds=12), typing())
    await world.until_pushed(within_s=60)
    await world.pull_all(contacts)
    await world.until_pushed(within_s=60)
    stop.set()
    await asyncio.gather(*running)

    assert outcomes["booked"] > 60
    assert outcomes.keys() <= {
        "booked",
        "cancelled",
        "DUPLICATE_BOOKING",
        "TIME_CONFLICT",
        "INSUFFICIENT_CREDITS",
    }
    for contact in contacts:
        ours = await balances(world.db, contact)
        theirs = await world.properties(CONTACT, contact.hubspot_id)
        assert {name: str(number) for name, number in ours.items()} == {
            name: theirs.get(name) or "0" for name in ours
        }
    assert sum([(await balances(world.db, contact))["cs_credits"] for contact in contacts]) == 20
    theirs = await world.records(BOOKING)
    ours = dict(await world.rows("select id::text, status from tallybook.bookings"))
    assert theirs.keys() == ours.keys()
    for exam in exams:
        taken = await world.value("select total_bookings from tallybook.mock_exams where id = %s", exam.id)
        found = await world.properties(MOCK_EXAM, await world.hubspot_id("mock_exams", exam.id))
        assert found["total_bookings"] == str(taken)
    assert await deadlocks(wide, others, world.db) == 0


async def test_control_confirming_with_outbox_rows_locked_first_deadlocks(
    world, wide, deadlocks, database_uri
):
    """The order of locks is what keeps the test above at zero: turned round, students and pushes deadlock."""
    exams = [await world.exam(capacity=100, days=days) for days in range(7, 13)]
    contacts = await world.students(12, credits={"sj_credits": 4})
    stop = asyncio.Event()

    async def confirm(connection, contact):
        await connection.execute(
            "select from tallybook.outbox where object_type = 'contact' and object_id = %s for update",
            (contact.id,),
        )
        await asyncio.sleep(0.002)
        await connection.execute(
            "update tallybook.contacts set synced_at = clock_timestamp() where id = %s", (contact.id,)
        )
        await connection.commit()

    async def confirm_the_wrong_way_round():
        async with await psycopg.AsyncConnection.connect(database_uri) as connection:
            while not stop.is_set():
                for contact in contacts:
                    try:
                        await confirm(connection, contact)
                    except psycopg.errors.DeadlockDetected:
                        await connection.rollback()

    wrong = [asyncio.create_task(confirm_the_wrong_way_round()) for _ in range(2)]
    await busy_students(wide, contacts, exams, rounds=12)
    stop.set()
    await asyncio.gather(*wrong)

    assert await deadlocks(wide, world.db) > 0


async def test_a_student_who_holds_a_contact_is_not_waited_for(world, database_uri):
    """What somebody holds at this moment is left out of the batch; the rest goes."""
    held, free = await world.students(2, credits={"sj_credits": 2})
    exam = await world.exam()
    for contact in (held, free):
        await book(world.db, contact, exam)
    async with await psycopg.AsyncConnection.connect(database_uri) as student:
        await student.execute("select from tallybook.contacts where id = %s for update", (held.id,))

        async with asyncio.timeout(3):
            result = await push_batch(world.mirror, CONTACT, linger=False)

        assert (result.claimed, result.written) == (2, 1)
        await student.rollback()
    await world.due()
    assert (await push_batch(world.mirror, CONTACT, linger=False)).written == 1


async def test_a_hot_session_is_pushed_while_everybody_books_it(world, wide):
    """Seats are sent without waiting for the session's lock, which is never free for long."""
    exam = await world.exam(capacity=500)
    contacts = await world.students(60, credits={"sj_credits": 1})
    written = 0

    async def pushing():
        nonlocal written
        while written < 3:
            written += (await push_batch(world.mirror, MirroredType.MOCK_EXAM, linger=False)).written

    await asyncio.gather(*(book(wide, contact, exam) for contact in contacts), pushing())
    await push_batch(world.mirror, MirroredType.MOCK_EXAM, linger=False)

    found = await world.properties(MOCK_EXAM, await world.hubspot_id("mock_exams", exam.id))
    assert found["total_bookings"] == "60"
