"""A real PostgreSQL for everybody: one server per run, a cloned database per test, verified at its end."""

import os
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from support.server import SETTINGS, SUPERUSER, TestServer
from tallybook.postgres.embedded import EmbeddedServer
from tallybook.postgres.pool import Database
from tallybook.usecases.verify import verify

SHARED_MEMORY = Path("/dev/shm")
# For some processes of the suite; what one uses at most was seen to stay under 1 GB.
ROOM_NEEDED = 4 << 30
# Files that take longest begin first: who got one of them last would keep all processors but one waiting.
LONGEST = (
    "mirror/test_two_sides.py",
    "machine/test_machine.py",
    "cli/test_daily_work.py",
    "mirror/test_killed_workers.py",
    "mirror/test_after_restore.py",
    "mirror/test_polling.py",
    "mirror/test_worker.py",
    "mirror/test_staff_and_worker.py",
    "mirror/test_backup.py",
    "mirror/test_sync_commands.py",
    "mirror/test_push_errors.py",
    "credits/test_examples.py",
    "races/test_races_with_kills.py",
    "races/test_races_interleaved.py",
    "mirror/test_migrate_guide.py",
)


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    rank = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda each: rank.get(each.path, len(LONGEST)))


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "broken_on_purpose: the test leaves numbers that do not add up, so verify is not asked at its end",
    )


@pytest.fixture(scope="session")
def data_dir():
    """Where the server of this run keeps its data; every account may pass through.

    Run as root, PostgreSQL before 16 goes back to its directory by name, as another account.
    """
    with tempfile.TemporaryDirectory(prefix="tallybook-test-", dir=_memory()) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def _memory():
    """A folder in memory where there is room for it, else None: each test copies a database.

    Measured while another program flushed its files: 22 ms a copy in memory, 300 ms on disk.
    """
    try:
        room = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return None
    return SHARED_MEMORY if room >= ROOM_NEEDED and os.access(SHARED_MEMORY, os.W_OK) else None


@pytest.fixture(scope="session")
async def postgres_server(data_dir):
    """The embedded PostgreSQL of this run with a migrated template; `PG_BINDIR` chooses its programs."""
    with EmbeddedServer.start(data_dir, settings=SETTINGS) as embedded:
        server = TestServer(embedded)
        await server.prepare()
        yield server


@pytest.fixture
async def database_name(postgres_server, request):
    """A fresh clone of the template. When the test is over, every number in it must still add up."""
    name = await postgres_server.create_database()
    yield name
    try:
        if request.node.get_closest_marker("broken_on_purpose") is None:
            await _expect_clean(postgres_server.uri(name))
    finally:
        await postgres_server.drop_database(name)


async def _expect_clean(uri):
    database = Database(uri)
    try:
        report = await verify(database)
    finally:
        await database.close()
    assert not report.violations, report.violations


@pytest.fixture
def database_uri(postgres_server, database_name):
    """The test's database, as its owner, who is no superuser."""
    return postgres_server.uri(database_name)


@pytest.fixture
def superuser_uri(postgres_server, database_name):
    """The test's database, as a superuser: for breaking what nobody else can break."""
    return postgres_server.uri(database_name, SUPERUSER)


@pytest.fixture
async def db(database_uri):
    """The application's way to the test's database."""
    database = Database(database_uri)
    yield database
    await database.close()


@pytest.fixture
async def connect():
    """Opens plain autocommit connections that end with the test: `await connect(uri)`."""
    async with AsyncExitStack() as stack:

        async def open_connection(uri):
            connection = await psycopg.AsyncConnection.connect(uri, autocommit=True)
            return await stack.enter_async_context(connection)

        yield open_connection


@pytest.fixture
async def owner(connect, database_uri):
    """A connection of the owner."""
    return await connect(database_uri)


@pytest.fixture
async def superuser(connect, superuser_uri):
    """A connection of the superuser."""
    return await connect(superuser_uri)


@pytest.fixture
async def as_role(connect, superuser_uri):
    """A connection that is one of our roles and nothing else: `await as_role("service_role")`."""

    async def become(role):
        connection = await connect(superuser_uri)
        await connection.execute(sql.SQL("set session authorization {}").format(sql.Identifier(role)))
        return connection

    return become
