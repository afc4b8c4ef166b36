"""Many askings released at one moment, each with a connection, and what each of them was told."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

from tallybook.domain.errors import TallybookError
from tallybook.postgres.pool import Database
from tallybook.usecases.grant_credits import grant_credits
from tallybook.usecases.idempotency import Idempotency

CONNECTIONS = 32


@asynccontextmanager
async def open_pool(uri, *, size=CONNECTIONS):
    """A pool whose connections are all open, so that a race starts in the database and not at its door."""
    database = Database(uri, size=size, acquire_timeout_s=30.0)
    try:
        await asyncio.gather(*(database.fetch_one("server_facts") for _ in range(size)))
        yield database
    finally:
        await database.close()


async def told_by(asking):
    """The data of an answer under its outcome, or the code of a refusal; anything else stays an exception."""
    try:
        data = await asking
    except TallybookError as error:
        return error.code, {}
    return data["_outcome"], data


async def at_once(*askings):
    """All of them, released together: [(outcome or code, data)] in their order."""
    barrier = asyncio.Barrier(len(askings))

    async def start(asking):
        await barrier.wait()
        return await told_by(asking)

    return await asyncio.gather(*(start(each) for each in askings))


def words(told):
    """How many were told what."""
    return Counter(word for word, _ in told)


async def granting(db, contact, number, *, key=None):
    """Staff adds sj_credits; shaped like the answers of the factories."""
    answer = await grant_credits(
        db,
        contact=str(contact.id),
        credit_type="sj_credits",
        credits=number,
        reason="for a race",
        actor="cli:test",
        idempotency=key and Idempotency(key, "grant", b"1"),
    )
    return {"_outcome": answer.outcome, "_replayed": answer.replayed}


async def rows(connection, statement, *values):
    """All rows of one statement."""
    cursor = await connection.execute(statement, values)
    return await cursor.fetchall()


async def changes(connection, contact):
    """The changes of a contact's sj_credits in order, without the first, which the factory made."""
    found = await rows(
        connection,
        "select delta, reason from tallybook.credit_entries where contact_id = %s"
        " and credit_type = 'sj_credits' order by seq",
        contact.id,
    )
    return found[1:]


async def live(connection, exam):
    """The live bookings of an exam, counted anew."""
    ((number,),) = await rows(
        connection,
        "select count(*) from tallybook.bookings where mock_exam_id = %s and status <> 'Cancelled'",
        exam.id,
    )
    return number


async def deadlocks(connection):
    """The deadlocks this database has seen, once every pool is closed: a session reports when it ends.

    The pool repeats a deadlocked statement, so nobody is told of one.
    """
    while True:
        ((others,),) = await rows(
            connection,
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and application_name = 'tallybook'",
        )
        if others == 0:
            break
        await asyncio.sleep(0.02)
    ((found,),) = await rows(
        connection, "select deadlocks from pg_stat_database where datname = current_database()"
    )
    return found
