"""kill -9 in the middle of bookings: what was answered is there, what was not is whole or absent."""

import asyncio
import json
import os
import signal
from contextlib import suppress

import pytest

from races.crowd import at_once, booked, booking_by, live_bookings, result_of, rows, tally, warm
from races.processes import hear, say, start
from support.factories import make_contact, make_contacts, make_mock_exam, seats_taken
from support.server import TestServer
from tallybook.postgres.embedded import EmbeddedServer
from tallybook.postgres.pool import Database
from tallybook.usecases.verify import verify

ANSWERS_BEFORE_THE_KILL = 60


async def answered_until_killed(process):
    """The ids of the bookings it was answered, killed after the sixtieth."""
    answered = []
    while line := await process.stdout.readline():
        word, booking_id = json.loads(line)
        assert word == "created"
        answered.append(booking_id)
        if len(answered) == ANSWERS_BEFORE_THE_KILL:
            process.kill()
    assert await process.wait() == -signal.SIGKILL
    return answered


async def stored(connection, ids):
    """How many of these bookings are there, live and paid."""
    ((found,),) = await rows(
        connection,
        "select count(*) from tallybook.bookings b join tallybook.credit_entries e on e.booking_id = b.id"
        " where b.id = any(%s::uuid[]) and b.status = 'Active' and e.delta = -1",
        list(ids),
    )
    return found


async def test_a_killed_client_leaves_whole_bookings_and_no_lock(wide, owner, database_uri):
    """A client with eight bookings under way is killed: its answers are kept, its locks are gone."""
    exams = [await make_mock_exam(wide, days=7 + n, capacity=500) for n in range(3)]
    crowd = await make_contacts(wide, 120, credits={"sj_credits": 3})
    client = await start("book-until-killed", database_uri)
    await say(
        client, json.dumps({"exams": [str(e.id) for e in exams], "contacts": [str(c.id) for c in crowd]})
    )
    assert await hear(client) == "ready"
    await say(client, "go")

    answered = await answered_until_killed(client)
    others = await make_contacts(wide, 3, credits={"sj_credits": 1})
    told = tally(
        await at_once(*(booking_by(wide, who, exam) for who, exam in zip(others, exams, strict=True)))
    )

    there = await live_bookings(owner)
    print(f"client killed: {len(answered)} answered, {there - 3} stored, 3 others: {dict(told)}")
    assert told == {"created": 3}
    assert await stored(owner, answered) == len(answered)
    # What was under way may have been stored a moment before its answer; no more than that can be too much.
    assert len(answered) <= there - 3 <= len(answered) + 8


async def test_a_client_killed_inside_its_transaction_has_booked_nothing(wide, owner, database_uri):
    """It holds contact and exam, dies, and the next one books the seat it never got."""
    exam = await make_mock_exam(wide, capacity=1)
    ada, bob = await make_contacts(wide, 2, credits={"sj_credits": 1})
    statement = (
        "select (tallybook.book_seat("
        f"'{ada.id}', null, null, null, '{exam.id}', null, null, 'student:{ada.id}', null,"
        " null, null, null, null, false)).data ->> 'id'"
    )
    client = await start("hold", database_uri)
    await say(client, json.dumps({"statement": statement}))
    unfinished = await hear(client)
    assert await rows(owner, "select 1 from tallybook.bookings where id = %s", unfinished) == []

    client.kill()
    await client.wait()
    result = await result_of(booking_by(wide, bob, exam))

    assert result.word == "created"
    assert await live_bookings(owner, contact=ada) == 0
    assert await seats_taken(wide, exam) == 1


async def test_control_a_client_that_is_not_killed_keeps_the_exam(wide, owner, database_uri):
    """Negative control: it is the end of the client that frees the seat, not the passing of time."""
    exam = await make_mock_exam(wide, capacity=1)
    ada, bob = await make_contacts(wide, 2, credits={"sj_credits": 1})
    client = await start("hold", database_uri)
    statement = f"select id from tallybook.mock_exams where id = '{exam.id}' for no key update"
    await say(client, json.dumps({"statement": statement}))
    await hear(client)

    result = await result_of(booking_by(wide, bob, exam))
    client.kill()
    await client.wait()

    assert result.word == "LOCK_TIMEOUT"
    assert await live_bookings(owner, contact=ada) == 0


class Durable:
    """A PostgreSQL that writes to the disk before it answers, and can be killed."""

    def __init__(self, directory, **settings):
        self.directory = directory
        self.embedded = EmbeddedServer.start(directory, settings=settings)
        self.server = TestServer(self.embedded)

    async def database(self):
        """The URI of a new database on it."""
        await self.server.prepare()
        return self.server.uri(await self.server.create_database())

    def kill(self, pid):
        """kill -9 of one of its processes."""
        os.kill(pid, signal.SIGKILL)

    async def start_again(self, uri):
        """A new server on the same directory; the URI of the same database there."""
        await asyncio.to_thread(self.embedded.stop)
        self.embedded = await asyncio.to_thread(EmbeddedServer.start, self.directory)
        return self.embedded.uri(uri.split("@/")[1].split("?")[0], "tallybook_owner")

    async def stop(self):
        await asyncio.to_thread(self.embedded.stop)


@pytest.fixture
async def durable(tmp_path):
    """A second PostgreSQL with fsync on."""
    durable = await asyncio.to_thread(Durable, tmp_path / "durable")
    yield durable
    await durable.stop()


async def load_until(database, crowd, exams, *, strike, after=80):
    """Everybody books every exam, eight at a time; `strike` comes at the 80th answer."""
    waiting = iter([(who, exam) for who in crowd for exam in exams])
    answered, words = [], []

    async def work():
        for who, exam in waiting:
            result = await result_of(booking_by(database, who, exam))
            words.append(result.word)
            if result.word == "created":
                answered.append(result.data["id"])
                if len(answered) == after:
                    strike()

    await asyncio.gather(*(work() for _ in range(8)))
    return answered, tally_of(words)


def tally_of(words):
    """How many were told what."""
    return {word: words.count(word) for word in sorted(set(words))}


async def world(database):
    """60 students with three credits and three exams with room for all."""
    exams = [await make_mock_exam(database, days=7 + n, capacity=100) for n in range(3)]
    return await make_contacts(database, 60, credits={"sj_credits": 3}), exams


async def expect_everything(uri, answered, *, most):
    """Verify is clean, every answered booking is there, and a new one can be made."""
    database = Database(uri, size=8)
    try:
        report = await verify(database)
        assert not report.violations, report.violations
        async with database.connection() as connection:
            assert await stored(connection, answered) == len(answered)
            bookings = await live_bookings(connection)
        exam = await make_mock_exam(database, days=30)
        await booked(database, await make_contact(database, credits={"sj_credits": 1}), exam)
        assert not (await verify(database)).violations
    finally:
        await database.close()
    assert len(answered) <= bookings <= most
    return bookings


async def test_postgresql_killed_under_load_keeps_every_answered_booking(durable):
    """kill -9 of PostgreSQL's first process: after the restart all that was answered is there."""
    uri = await durable.database()
    database = Database(uri, size=8)
    crowd, exams = await world(database)
    await warm(database, 8)

    answered, told = await load_until(
        database, crowd, exams, strike=lambda: durable.kill(durable.embedded.pid)
    )
    await database.close()
    uri = await durable.start_again(uri)
    bookings = await expect_everything(uri, answered, most=185)

    print(f"PostgreSQL killed: {told}; {len(answered)} answered, {bookings} stored")
    assert told["DATABASE_UNAVAILABLE"] > 0
    assert len(answered) >= 80
    assert bookings <= len(answered) + 8


async def test_a_crash_inside_postgresql_is_over_without_a_restart_of_ours(durable):
    """kill -9 of one backend makes PostgreSQL recover: the same pool goes on, nothing is lost."""
    uri = await durable.database()
    database = Database(uri, size=8, connect_timeout_s=3)
    crowd, exams = await world(database)
    await warm(database, 8)
    async with database.connection() as connection:
        ((victim,),) = await rows(
            connection,
            "select pid from pg_stat_activity where application_name = 'tallybook'"
            " and pid <> pg_backend_pid() limit 1",
        )

    answered, told = await load_until(database, crowd, exams, strike=lambda: durable.kill(victim))
    async with asyncio.timeout(30):
        while True:
            with suppress(Exception):
                if await database.fetch_one("server_facts"):
                    break
            await asyncio.sleep(0.05)
    more = [await make_contact(database, credits={"sj_credits": 1}) for _ in range(5)]
    again = [await booked(database, who, exams[0]) for who in more]
    await database.close()
    bookings = await expect_everything(uri, answered, most=185)

    print(f"a backend killed: {told}; {len(answered)} answered, {bookings} stored after {len(again)} more")
    assert told["DATABASE_UNAVAILABLE"] > 0
    assert len(answered) >= 80


async def test_control_without_a_wait_for_the_disk_answers_are_lost(tmp_path):
    """Negative control: with synchronous_commit off, answered bookings are gone after the kill."""
    durable = await asyncio.to_thread(
        Durable,
        tmp_path / "hasty",
        synchronous_commit="off",
        wal_writer_delay="10s",
        wal_writer_flush_after="1GB",
    )
    try:
        uri = await durable.database()
        database = Database(uri, size=8)
        crowd, exams = await world(database)
        answered, _ = await load_until(
            database, crowd, exams, strike=lambda: durable.kill(durable.embedded.pid)
        )
        await database.close()
        again = Database(await durable.start_again(uri), size=2)
        async with again.connection() as connection:
            kept = await stored(connection, answered)
        await again.close()
    finally:
        await durable.stop()
    print(f"without the wait for the disk: {len(answered)} answered, {kept} kept")
    assert kept < len(answered)
