"""What every race needs: a wide pool, the means to take a guard away, and the number of deadlocks."""

import asyncio

import pytest

from races.crowd import rows, warm
from races.guards import remove
from tallybook.postgres.pool import Database


@pytest.fixture
async def wide(database_uri):
    """The application's way to the test's database with 32 open connections."""
    database = Database(database_uri, size=32, acquire_timeout_s=30.0)
    await warm(database, 32)
    yield database
    await database.close()


@pytest.fixture
def without(superuser):
    """Takes guards away: `await without(SEAT_CHECK, EXAM_LOCK_OF_BOOKING)`."""

    async def take_away(*groups):
        await remove(superuser, *(guard for group in groups for guard in group))

    return take_away


@pytest.fixture
def deadlocks(postgres_server, database_name, connect):
    """How many deadlocks this test's database has seen; the pool repeats them, so nobody is told."""

    async def count(*pools):
        for pool in pools:
            # A server process reports its numbers when it ends.
            await pool.close()
        observer = await connect(postgres_server.uri("postgres"))
        for _ in range(200):
            ((others,),) = await rows(
                observer,
                "select count(*) from pg_stat_activity where datname = %s and application_name = 'tallybook'",
                database_name,
            )
            if others == 0:
                break
            await asyncio.sleep(0.02)
        ((found,),) = await rows(
            observer, "select deadlocks from pg_stat_database where datname = %s", database_name
        )
        return found

    return count
