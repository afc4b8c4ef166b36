"""Migrations are plain files that any tool may apply, once, in order."""

import asyncio
import re
from pathlib import Path

import psycopg
import pytest

from support.server import OWNER
from tallybook.domain.catalog import default_catalog
from tallybook.domain.errors import SetupError
from tallybook.postgres.catalog_tables import apply_catalog
from tallybook.postgres.migrate import check_release, migrate, migrations, read_status, schema_status
from tallybook.postgres.pool import Database
from tallybook.usecases.verify import verify

FOLDER = Path(__file__).parents[2] / "supabase" / "migrations"
FIRST = migrations()[0].version
LAST = migrations()[-1].version


@pytest.fixture
async def empty_uri(postgres_server):
    """An empty database of the owner's."""
    name = await postgres_server.create_database(template="template1")
    yield postgres_server.uri(name)
    await postgres_server.drop_database(name)


async def _fetch(uri, query):
    async with await psycopg.AsyncConnection.connect(uri) as connection:
        return await (await connection.execute(query)).fetchall()


def test_every_file_is_named_by_time_verb_and_noun():
    """YYYYMMDDHHMMSS_verb_noun.sql, each version once, nothing else in the folder."""
    names = sorted(path.name for path in FOLDER.iterdir())
    assert [each for each in names if not re.fullmatch(r"2\d{13}_[a-z]+(_[a-z]+)+\.sql", each)] == []
    assert len({each[:14] for each in names}) == len(names) == len(migrations())


@pytest.mark.parametrize("migration", migrations(), ids=lambda each: each.name)
def test_every_file_records_itself_under_its_own_name(migration):
    """What a file writes into schema_migrations is what it is called."""
    assert f"'{migration.version}', '{migration.name}'" in migration.sql
    if migration.version != FIRST:
        first_statement = re.sub(r"^--.*\n", "", migration.sql, flags=re.MULTILINE).strip()
        assert first_statement.startswith("select tallybook.begin_migration(")


async def test_migrating_twice_does_nothing_the_second_time(empty_uri):
    """The second run finds nothing to apply."""
    assert await migrate(empty_uri) == migrations()
    assert await migrate(empty_uri) == ()
    status = await read_status(empty_uri)
    assert (len(status.applied), status.pending, status.unknown) == (len(migrations()), (), ())


async def test_a_dry_run_changes_nothing(empty_uri):
    """What would be applied is told, and not applied."""
    assert await migrate(empty_uri, dry_run=True) == migrations()
    assert (await read_status(empty_uri)).applied == ()
    assert await _fetch(empty_uri, "select 1 from pg_namespace where nspname = 'tallybook'") == []


async def test_eight_processes_migrating_at_once_apply_everything_once(empty_uri):
    """One of them does the work, seven find it done."""
    done = await asyncio.gather(*(migrate(empty_uri) for _ in range(8)))
    assert sorted(len(each) for each in done) == [0] * 7 + [len(migrations())]


async def test_applying_a_file_twice_is_refused_with_a_hint(owner):
    """Whatever tool repeats a file is told how to look, and nothing changes."""
    for migration in migrations():
        with pytest.raises(psycopg.errors.RaiseException) as refused:
            await owner.execute(migration.sql)
        assert "already" in refused.value.diag.message_primary
        assert "tallybook migrate --status" in refused.value.diag.message_hint


async def test_psql_applies_the_files_one_by_one(postgres_server, empty_uri):
    """A person with psql gets the same schema, and Tallybook knows it."""
    for path in sorted(FOLDER.iterdir()):
        psql = await asyncio.create_subprocess_exec(
            postgres_server.embedded.binaries.program("psql"),
            "-X",
            "-q",
            "-1",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            empty_uri,
            "-f",
            path,
            stderr=asyncio.subprocess.PIPE,
        )
        said = (await psql.communicate())[1].decode()
        assert psql.returncode == 0, said
    assert await migrate(empty_uri) == ()
    await apply_catalog(empty_uri, default_catalog())
    database = Database(empty_uri)
    assert (await verify(database)).ok()
    await database.close()


async def test_a_failing_migration_leaves_nothing_behind(empty_uri):
    """All or nothing: what stands in the way is named, and the database is as before."""
    async with await psycopg.AsyncConnection.connect(empty_uri) as connection:
        await connection.execute("create schema tallybook")
    with pytest.raises(SetupError, match=r"create_schema failed: schema .tallybook. already exists"):
        await migrate(empty_uri)
    assert (await read_status(empty_uri)).applied == ()


async def test_an_interrupted_series_goes_on_where_it_stopped(empty_uri):
    """Files applied by another tool count; the rest follow."""
    async with await psycopg.AsyncConnection.connect(empty_uri) as connection:
        for migration in migrations()[:4]:
            await connection.execute(migration.sql)
    status = await read_status(empty_uri)
    assert (len(status.applied), len(status.pending)) == (4, len(migrations()) - 4)
    with pytest.raises(SetupError, match="lacks"):
        check_release(status, release="0.1.0")
    assert await migrate(empty_uri) == migrations()[4:]


async def test_a_newer_schema_is_used_until_it_says_no(owner):
    """An older release runs on a newer schema, down to the release the schema demands."""
    await owner.execute(
        "insert into tallybook.schema_migrations (version, name, min_release)"
        " values ('29990101000000', 'add_something', '0.1.0')"
    )
    status = await schema_status(owner)
    assert status.unknown == ("29990101000000",)
    check_release(status, release="0.1.0")
    await owner.execute(
        "insert into tallybook.schema_migrations (version, name, min_release)"
        " values ('29990102000000', 'drop_something', '0.10.0')"
    )
    with pytest.raises(SetupError, match=r"needs Tallybook 0\.10\.0 or newer; this is 0\.9\.3"):
        check_release(await schema_status(owner), release="0.9.3")
    check_release(await schema_status(owner), release="0.10.0")


async def test_an_empty_database_is_told_to_migrate(empty_uri):
    """Without a schema the answer names the command."""
    with pytest.raises(SetupError, match="has no Tallybook schema") as refused:
        check_release(await read_status(empty_uri), release="0.1.0")
    assert "tallybook migrate" in refused.value.hint


async def test_supabase_hears_of_it_only_when_asked(empty_uri):
    """Its history is touched by --mark-supabase alone, which leaves foreign rows as they are."""
    await migrate(empty_uri)
    assert await _fetch(empty_uri, "select 1 from pg_namespace where nspname = 'supabase_migrations'") == []
    async with await psycopg.AsyncConnection.connect(empty_uri) as connection:
        await connection.execute("create schema supabase_migrations")
        await connection.execute(
            "create table supabase_migrations.schema_migrations"
            " (version text primary key, statements text[], name text)"
        )
        await connection.execute(
            "insert into supabase_migrations.schema_migrations values"
            " ('20240101000000', '{select 1}', 'their_own'), (%s, null, 'marked_before')",
            (FIRST,),
        )
    for _ in range(2):
        await migrate(empty_uri, mark_supabase=True)
    rows = await _fetch(
        empty_uri, "select version, name from supabase_migrations.schema_migrations order by 1"
    )
    assert rows[0] == ("20240101000000", "their_own")
    assert [version for version, _ in rows[1:]] == [each.version for each in migrations()]
    assert rows[1][1] == "marked_before"
    assert (await read_status(empty_uri)).unknown == ()


async def test_an_unreachable_database_is_one_line(postgres_server):
    """The error names the setting, and no password."""
    with pytest.raises(SetupError) as refused:
        await migrate(postgres_server.uri("no_such_database"))
    assert "no_such_database" in refused.value.message
    assert "DATABASE_URL" in refused.value.hint
    assert "\n" not in refused.value.message


async def test_the_owner_may_become_the_application(empty_uri):
    """Also an owner who is no superuser, and on a server where creating a role does not give it away."""
    await migrate(empty_uri)
    assert await _fetch(empty_uri, "select current_user") == [(OWNER,)]
    database = Database(empty_uri)
    async with database.connection() as connection:
        assert await (await connection.execute("select current_user")).fetchone() == ("tallybook_app",)
    await database.close()


async def test_a_migration_ends_with_a_safe_schema(empty_uri):
    """After each release's last file the check finds nothing open."""
    await migrate(empty_uri)
    assert migrations()[-1].sql.rstrip().endswith("select tallybook.secure();")
    assert await _fetch(empty_uri, "select problem from tallybook.security_problems()") == []


async def test_a_catalog_without_a_schema_says_so(empty_uri):
    """Applying a catalog to an empty database names the command to run first."""
    with pytest.raises(SetupError, match="no Tallybook schema"):
        await apply_catalog(empty_uri, default_catalog())
