"""kill -9 of PostgreSQL under load: what was answered is there, and what is there adds up."""

import asyncio
import os
import signal
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from races.barrier import open_pool, told_by
from support.factories import book, make_contacts, make_mock_exam
from support.server import TestServer
from tallybook.postgres.embedded import EmbeddedServer
from tallybook.usecases.verify import verify

WORKERS = 8
STUDENTS = 600
# A durable server, as in real life; the one of the other tests is not.
SETTINGS = {"fsync": "on", "synchronous_commit": "on", "max_connections": "50"}


@pytest.fixture
def durable_dir():
    """A data directory of its own that the account of PostgreSQL may enter."""
    with tempfile.TemporaryDirectory(prefix="tallybook-kill-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


async def book_until_killed(db, contacts, exam, pid):
    """Eight at a time book; after 100 answers the server is killed. What was told, and who was answered."""
    told, answered, waiting = Counter(), {}, iter(contacts)

    async def work():
        for contact in waiting:
            word, data = await told_by(book(db, contact, exam))
            told[word] += 1
            if word == "created":
                answered[data["id"]] = contact
            if len(answered) == 100 and word == "created":
                os.kill(pid, signal.SIGKILL)

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    return told, answered


async def test_a_killed_postgresql_keeps_every_answered_booking(durable_dir):
    """Killed in the middle of 600 bookings: the answered ones are there again, and verify is clean."""
    with EmbeddedServer.start(durable_dir, settings=SETTINGS) as embedded:
        server = TestServer(embedded)
        await server.prepare()
        name = await server.create_database()
        async with open_pool(server.uri(name), size=WORKERS) as db:
            contacts = await make_contacts(db, STUDENTS, credits={"sj_credits": 1})
            exam = await make_mock_exam(db, capacity=STUDENTS)
            told, answered = await book_until_killed(db, contacts, exam, embedded.pid)

    with EmbeddedServer.start(durable_dir, settings=SETTINGS) as embedded:
        async with open_pool(TestServer(embedded).uri(name), size=WORKERS) as db:
            report = await verify(db)
            async with db.connection() as connection:
                cursor = await connection.execute("select id::text, contact_id from tallybook.bookings")
                stored = dict(await cursor.fetchall())

    print(f"killed: {dict(told)}; answered {len(answered)}, stored {len(stored)}")
    assert set(told) == {"created", "DATABASE_UNAVAILABLE"}
    assert 100 <= len(answered) < STUDENTS
    assert all(stored.get(each) == contact.id for each, contact in answered.items())
    assert not report.violations
