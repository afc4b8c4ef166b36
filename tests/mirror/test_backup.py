"""Backup and restore: exact, all or nothing, refused when in doubt, and held until HubSpot was compared."""

import asyncio
import json
import os
import stat
import zipfile
from contextlib import nullcontext

import psycopg
import pytest
from psycopg import sql

from support.commands import SECRET_KEY, CommandLine
from support.factories import balances, book, cancel, grant, make_contact, make_mock_exam
from tallybook.domain.errors import SetupError
from tallybook.domain.portal_marker import PortalMarker
from tallybook.hubspot.budget import CallKind
from tallybook.postgres.backup import restore_backup, write_backup
from tallybook.postgres.migrate import apply, migrations
from tallybook.postgres.pool import Database
from tallybook.usecases.guard_mirror import demand_same_portal, read_portal
from tallybook.usecases.mark_backup import mark_backup
from tallybook.usecases.verify import verify

# What a restore itself notes down: that nothing is pushed before HubSpot was asked.
NOTED = ("sync_state",)
DEFINITIONS = {
    "functions": "select pg_get_functiondef(oid) from pg_proc"
    " where pronamespace = 'tallybook'::regnamespace order by 1",
    "triggers": "select pg_get_triggerdef(oid), tgenabled from pg_trigger where not tgisinternal order by 1",
    "rights": "select relname::text, relacl::text from pg_class"
    " where relnamespace = 'tallybook'::regnamespace order by 1",
}
UNLOGGED = ("rate_events", "crm_call_slots")


def ignore(_table, _rows):
    pass


async def backed_up(uri, file):
    return await write_backup(uri, file, release="0.1.0", on_progress=ignore)


async def restored(uri, file, *, replace=False):
    return await restore_backup(uri, file, replace=replace, on_progress=ignore)


async def fingerprint(uri):
    """Of every table and sequence its whole content, of the schema its definitions."""
    found = {}
    async with await psycopg.AsyncConnection.connect(uri, autocommit=True) as connection:
        cursor = await connection.execute(
            "select relname, relkind from pg_class where relnamespace = 'tallybook'::regnamespace"
            " and relkind in ('r', 'S')"
        )
        for name, kind in await cursor.fetchall():
            if name in (*NOTED, *UNLOGGED):
                continue
            whole = "last_value || ' ' || is_called" if kind == "S" else "t::text"
            cursor = await connection.execute(
                sql.SQL(
                    f"select count(*), md5(string_agg({whole}, '|' order by {whole})) from tallybook.{{}} t"
                ).format(sql.Identifier(name))
            )
            found[name] = await cursor.fetchone()
        for name, statement in DEFINITIONS.items():
            cursor = await connection.execute(statement)
            found[name] = await cursor.fetchall()
    return found


async def fill(db):
    """People, sessions, bookings, a cancellation, a grant; texts that a careless format would break."""
    ann = await make_contact(db, credits={"sj_credits": 3, "cs_credits": 1, "credits": 9})
    await make_contact(db, credits=None, email="o'b\\n-tab@example.com")
    exam = await make_mock_exam(db)
    later = await make_mock_exam(db, days=9)
    kept = await book(db, ann, exam, key="k1")
    gone = await book(db, ann, later)
    await cancel(db, ann, gone)
    await grant(db, ann, "cs_credits", 4)
    async with db.connection() as connection:
        await connection.execute(
            "update tallybook.contacts set firstname = %s, lastname = '' where id = %s",
            ('Zoë\t\\N\r\n"\u2603', ann.id),
        )
    return ann, exam, kept


@pytest.fixture
async def empty_uri(postgres_server):
    """A database without anything of ours, owned by its user; verified when the test is over."""
    name = await postgres_server.create_database(template="template0")
    yield postgres_server.uri(name)
    await postgres_server.drop_database(name)


async def expect_clean(uri):
    database = Database(uri)
    try:
        report = await verify(database)
    finally:
        await database.close()
    assert not report.violations


async def test_a_round_trip_into_an_empty_database_is_exact(db, database_uri, empty_uri, tmp_path):
    """Rows, sequences, functions, triggers and rights; and work goes on there as if nothing had happened."""
    ann, _, _ = await fill(db)
    before = await fingerprint(database_uri)
    written = await backed_up(database_uri, tmp_path / "a.backup")
    assert await fingerprint(database_uri) == before
    read = await restored(empty_uri, tmp_path / "a.backup")
    assert read == written
    assert await fingerprint(empty_uri) == before
    await expect_clean(empty_uri)
    other = Database(empty_uri)
    await book(other, ann, await make_mock_exam(other, days=11))
    await grant(other, ann, "sj_credits", 1)
    await other.close()
    await expect_clean(empty_uri)


async def test_restoring_twice_is_restoring_once(db, database_uri, tmp_path):
    """What happened after the backup is gone, what happened before is there; the schema is untouched."""
    ann, exam, kept = await fill(db)
    before = await fingerprint(database_uri)
    await backed_up(database_uri, tmp_path / "a.backup")
    await cancel(db, ann, kept)
    await book(db, await make_contact(db, credits={"sj_credits": 1}), exam)
    for _ in range(2):
        await restored(database_uri, tmp_path / "a.backup", replace=True)
        assert await fingerprint(database_uri) == before


async def test_a_backup_is_one_moment_while_people_book(db, database_uri, empty_uri, tmp_path):
    """Twenty students book while it is written; whatever moment it is, every number in it adds up."""
    students = [await make_contact(db, credits={"sj_credits": 1}) for _ in range(20)]
    exam = await make_mock_exam(db, capacity=20)

    async def everybody():
        for each in students:
            await book(db, each, exam)

    booking = asyncio.create_task(everybody())
    await backed_up(database_uri, tmp_path / "a.backup")
    await booking
    await restored(empty_uri, tmp_path / "a.backup")
    await expect_clean(empty_uri)


async def test_the_file_is_its_owner_s_alone_and_never_replaces_one(db, database_uri, tmp_path):
    """Mode 0600 whatever the umask, no half file under its name, a second one under it is refused."""
    file = tmp_path / "a.backup"
    before = os.umask(0)
    try:
        await backed_up(database_uri, file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = file.read_bytes()
    with pytest.raises(SetupError, match="exists already"):
        await backed_up(database_uri, file)
    assert (file.read_bytes(), [each.name for each in tmp_path.iterdir()]) == (content, ["a.backup"])


async def test_a_database_in_use_is_not_replaced_unasked(db, database_uri, tmp_path):
    """Refused with what to do, and nothing is changed."""
    await fill(db)
    await backed_up(database_uri, tmp_path / "a.backup")
    await make_contact(db)
    before = await fingerprint(database_uri)
    with pytest.raises(SetupError, match="in use") as caught:
        await restored(database_uri, tmp_path / "a.backup")
    assert "--replace" in caught.value.hint
    assert await fingerprint(database_uri) == before


def cut_off(file):
    file.write_bytes(file.read_bytes()[:-200])


def flip_a_bit(file):
    with zipfile.ZipFile(file) as archive:
        member = archive.getinfo("tables/contacts.copy")
    # Behind the header with its name and its 20 bytes about large files, inside the packed text.
    at = member.header_offset + 30 + len(member.filename) + 20 + member.compress_size // 2
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def _rewritten(file, change):
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def change_a_balance(file):
    def change(members):
        members["tables/credit_balances.copy"] = members["tables/credit_balances.copy"].replace(
            b"\t3\t", b"\t4\t"
        )
        assert b"\t4\t" in members["tables/credit_balances.copy"]

    _rewritten(file, change)


def lose_a_table(file):
    _rewritten(file, lambda members: members.pop("tables/bookings.copy"))


def lose_the_manifest(file):
    _rewritten(file, lambda members: members.pop("manifest.json"))


def claim_another_count(file):
    def change(members):
        manifest = json.loads(members["manifest.json"])
        manifest["tables"]["contacts"]["rows"] += 1
        members["manifest.json"] = json.dumps(manifest).encode()

    _rewritten(file, change)


def come_from_the_future(file):
    def change(members):
        manifest = json.loads(members["manifest.json"])
        manifest["migrations"].append("29991231000000")
        members["manifest.json"] = json.dumps(manifest).encode()

    _rewritten(file, change)


def be_something_else(file):
    file.write_text("select 1;")


@pytest.mark.parametrize(
    "damage",
    [
        *(cut_off, flip_a_bit, change_a_balance, lose_a_table, lose_the_manifest),
        *(claim_another_count, come_from_the_future, be_something_else),
    ],
    ids=lambda damage: damage.__name__,
)
async def test_a_damaged_backup_changes_nothing(db, database_uri, tmp_path, damage):
    """Whatever is wrong with the file is one line, and the database is as it was."""
    await fill(db)
    await backed_up(database_uri, tmp_path / "a.backup")
    await make_contact(db)
    before = await fingerprint(database_uri)
    damage(tmp_path / "a.backup")
    with pytest.raises(SetupError):
        await restored(database_uri, tmp_path / "a.backup", replace=True)
    assert await fingerprint(database_uri) == before


async def test_a_backup_of_an_older_schema_is_brought_up_to_date(postgres_server, empty_uri, tmp_path):
    """Its own migrations first, then its rows, then the newer ones; an existing newer schema is refused."""
    name = await postgres_server.create_database(template="template0")
    old = postgres_server.uri(name)
    async with await psycopg.AsyncConnection.connect(old) as connection:
        await apply(connection, [each for each in migrations() if each.version < "20261121001900"])
        await connection.execute("insert into tallybook.contacts (email) values ('old@example.com')")
    await backed_up(old, tmp_path / "old.backup")
    await restored(empty_uri, tmp_path / "old.backup")
    async with await psycopg.AsyncConnection.connect(empty_uri) as connection:
        cursor = await connection.execute(
            "select (select count(*) from tallybook.schema_migrations), email from tallybook.contacts"
        )
        assert await cursor.fetchone() == (len(migrations()), "old@example.com")
    with pytest.raises(SetupError, match="another schema"):
        await restored(empty_uri, tmp_path / "old.backup", replace=True)
    await postgres_server.drop_database(name)


async def hold(owner):
    cursor = await owner.execute("select value from tallybook.sync_state where name = 'hold'")
    row = await cursor.fetchone()
    return row[0] if row else None


async def test_a_restored_database_is_held_until_hubspot_says_that_it_is_not_ahead(
    mirror, owner, database_uri, tmp_path
):
    """The marker was raised after the backup, so the backup is behind; the newest state is not."""
    await demand_same_portal(mirror)
    await backed_up(database_uri, tmp_path / "before.backup")
    assert await mark_backup(mirror)
    await backed_up(database_uri, tmp_path / "after.backup")
    for name, expected in (("after", None), ("before", "restored")):
        await restored(database_uri, tmp_path / f"{name}.backup", replace=True)
        assert (await hold(owner))["unchecked"] is True
        with pytest.raises(SetupError) if expected else nullcontext():
            await demand_same_portal(mirror)
        found = await hold(owner)
        assert (found and found["reason"]) == expected
        assert not (found and "unchecked" in found)


async def test_without_hubspot_a_restored_database_stays_held(mirror, owner, portal, database_uri, tmp_path):
    """Not knowing is not a yes."""
    await demand_same_portal(mirror)
    await backed_up(database_uri, tmp_path / "a.backup")
    await restored(database_uri, tmp_path / "a.backup", replace=True)
    await mirror.client.describe_property(
        "contacts", "tallybook_sync", "somebody wrote over it", kind=CallKind.PUSH, deadline_s=5
    )
    with pytest.raises(SetupError):
        await demand_same_portal(mirror)
    assert (await hold(owner))["unchecked"] is True


async def test_a_raise_that_began_before_the_backup_does_not_count_as_its_own(mirror, owner, portal):
    """Its number is in the backup; a second one has to follow."""
    await demand_same_portal(mirror)
    await owner.execute("select tallybook.begin_epoch()")
    marking = asyncio.create_task(mark_backup(mirror))
    await asyncio.sleep(0.2)
    assert not marking.done()
    await owner.execute("select tallybook.confirm_epoch(2)")
    assert await marking
    assert (await read_portal(mirror)).marker == PortalMarker(
        (await read_portal(mirror)).marker.database_id, 3
    )


async def test_the_commands_say_what_they_did(tmp_path, db, database_uri, empty_uri):
    """One line with rows and size; a restore ends with the proof."""
    ann, _, _ = await fill(db)
    tallybook = CommandLine(
        tmp_path,
        {"DATABASE_URL": database_uri, "TALLYBOOK_SECRET_KEY": SECRET_KEY, "TALLYBOOK_LOGIN_CODE": "none"},
    )
    await asyncio.to_thread(tallybook, "backup", "a.backup")
    assert "exists already" in (await asyncio.to_thread(tallybook.error, "backup", "a.backup"))[0]
    assert "in use" in (await asyncio.to_thread(tallybook.error, "restore", "a.backup"))[0]
    had = await balances(db, ann)
    await grant(db, ann, "sj_credits", 5)
    shown = (await asyncio.to_thread(tallybook, "restore", "a.backup", "--replace")).stdout
    assert "Every number is right." in shown
    assert "nothing is pushed until" in shown
    assert await balances(db, ann) == had
    shown = (await asyncio.to_thread(tallybook, "restore", "a.backup", DATABASE_URL=empty_uri)).stdout
    assert "Every number is right." in shown


def test_the_embedded_database_is_backed_up_like_any_other(tmp_path):
    """No program of PostgreSQL's is needed for it."""
    settings = {"TALLYBOOK_EMBEDDED": "1", "TALLYBOOK_SECRET_KEY": SECRET_KEY, "TALLYBOOK_LOGIN_CODE": "none"}
    tallybook = CommandLine(tmp_path, settings)
    tallybook("migrate")
    tallybook("key", "create", "website", "--scope", "students")
    tallybook("backup", "a.backup")
    tallybook("key", "create", "other", "--scope", "students")
    tallybook("restore", "a.backup", "--replace")
    assert [each["name"] for each in tallybook.json("key", "list")] == ["website"]
