"""The command on the test's database, and a simulated portal beside it."""

import pytest

from support.commands import SECRET_KEY, CommandLine


@pytest.fixture
def tallybook(tmp_path, database_uri):
    """The command on the test's migrated database."""
    return CommandLine(
        tmp_path,
        {
            "DATABASE_URL": database_uri,
            "TALLYBOOK_SECRET_KEY": SECRET_KEY,
            "TALLYBOOK_LOGIN_CODE": "none",
            "TALLYBOOK_POOL_SIZE": "4",
        },
    )


@pytest.fixture
async def empty_database_uri(postgres_server):
    """A database without anything of ours in it, owned by its user."""
    name = await postgres_server.create_database(template="template0")
    yield postgres_server.uri(name)
    await postgres_server.drop_database(name)


@pytest.fixture
def command(tmp_path):
    """The command without any setting."""
    return CommandLine(tmp_path)


@pytest.fixture
def simulator(command):
    """The address of a simulated portal with sixty contacts."""
    with command.running("simulator", "--port", "0", "--contacts", "60", "--token", "right") as process:
        yield process.stdout.readline().split(" on ")[1].strip()
