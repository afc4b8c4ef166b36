"""Migrations: plain SQL files, applied in order in one transaction, each recording itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, sql

from tallybook.domain.errors import SetupError
from tallybook.postgres.answers import domain_error

_NAME = re.compile(r"^(\d{14})_(\w+)\.sql$")
# "tallybook" in ASCII, folded to a bigint: one migration at a time, whichever process runs it.
_LOCK = 0x74616C6C79


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its version (a timestamp), its name and its SQL."""

    version: str
    name: str
    sql: LiteralString


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """What a database has, against what this release brings.

    `pending` are ours that it lacks; `unknown` are versions it has from a newer release; `min_release` is the
    oldest release that runs on it.
    """

    applied: tuple[str, ...]
    pending: tuple[str, ...]
    unknown: tuple[str, ...]
    min_release: str


def migrations() -> tuple[Migration, ...]:
    """All migrations of this release, oldest first. A wheel carries them; a checkout has `supabase/`."""
    source: Traversable = files("tallybook.postgres") / "migrations"
    if not source.is_dir():
        source = Path(__file__).parents[3] / "supabase" / "migrations"
    found = [
        Migration(match[1], match[2], each.read_text(encoding="utf-8"))
        for each in source.iterdir()
        if (match := _NAME.match(each.name))
    ]
    return tuple(sorted(found, key=lambda each: each.version))


async def migrate(uri: str, *, dry_run: bool = False, mark_supabase: bool = False) -> tuple[Migration, ...]:
    """Applies what is missing, all or nothing, and gives what was (or would be) applied.

    `mark_supabase` also tells Supabase's own history, so that `supabase db push` does not try again.
    """
    async with await connect(uri) as connection:
        await lock_migrations(connection)
        status = await schema_status(connection)
        missing = tuple(each for each in migrations() if each.version in status.pending)
        if dry_run:
            await connection.rollback()
            return missing
        await apply(connection, missing)
        if mark_supabase:
            await _mark_supabase(connection)
        return missing


async def lock_migrations(connection: AsyncConnection[tuple[object, ...]]) -> None:
    """Waits for whoever changes the schema at this moment; ends with the transaction."""
    await connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))


async def apply(connection: AsyncConnection[tuple[object, ...]], wanted: Sequence[Migration]) -> None:
    """Applies these in order, in the transaction that is open. Raises SetupError naming one that failed."""
    for each in wanted:
        try:
            await connection.execute(each.sql)
        except psycopg.Error as error:
            raise SetupError(
                f"migration {each.version}_{each.name} failed: {error.diag.message_primary or error}",
                hint="Nothing was changed. " + (error.diag.message_hint or "See the server's log."),
            ) from error


async def ensure_database(uri: str, name: str) -> None:
    """Creates the database `name` on the server behind `uri` unless it is there."""
    connection = await connect(uri)
    await connection.set_autocommit(True)
    async with connection:
        cursor = await connection.execute("select 1 from pg_database where datname = %s", (name,))
        if await cursor.fetchone() is None:
            await connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


async def read_status(uri: str) -> SchemaStatus:
    """What the database has; SetupError when it cannot be reached."""
    async with await connect(uri) as connection:
        return await schema_status(connection)


async def schema_status(connection: AsyncConnection[tuple[object, ...]]) -> SchemaStatus:
    """What the database behind this connection has."""
    cursor = await connection.execute("select to_regclass('tallybook.schema_migrations') is not null")
    row = await cursor.fetchone()
    rows: Sequence[tuple[object, ...]] = ()
    if row and row[0]:
        cursor = await connection.execute("select version, min_release from tallybook.schema_migrations")
        rows = await cursor.fetchall()
    return status_of([(str(version), str(release)) for version, release in rows])


def status_of(rows: Sequence[tuple[str, str]]) -> SchemaStatus:
    """The status behind the rows (version, min_release) of `schema_migrations`."""
    applied = {version for version, _ in rows}
    ours = {each.version for each in migrations()}
    newest = max((release for _, release in rows), key=_release_key, default="0.0.0")
    return SchemaStatus(
        applied=tuple(sorted(applied)),
        pending=tuple(sorted(ours - applied)),
        unknown=tuple(sorted(applied - ours)),
        min_release=newest,
    )


def check_release(status: SchemaStatus, *, release: str) -> None:
    """Refuses, as SetupError, to run below what the schema demands, or without a schema it needs."""
    if _release_key(release) < _release_key(status.min_release):
        raise SetupError(
            f"this database needs Tallybook {status.min_release} or newer; this is {release}",
            hint="Install the newer release, or restore the database to an older schema.",
        )
    if status.pending:
        behind = (
            "has no Tallybook schema" if not status.applied else f"lacks {len(status.pending)} migration(s)"
        )
        raise SetupError(f"the database {behind}", hint="Run: tallybook migrate")


def _release_key(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release)[:3])


async def connect(uri: str, purpose: str = "migrate") -> AsyncConnection[tuple[Any, ...]]:
    """A connection to where migrations run. Raises SetupError."""
    try:
        return await AsyncConnection.connect(uri, connect_timeout=5, application_name=f"tallybook {purpose}")
    except psycopg.Error as error:
        known = domain_error(error)
        raise SetupError(
            f"the database cannot be reached: {str(error).strip().splitlines()[-1]}",
            hint="Check DATABASE_URL (and DATABASE_MIGRATION_URL).",
        ) from (known or error)


async def _mark_supabase(connection: AsyncConnection[tuple[object, ...]]) -> None:
    await connection.execute("create schema if not exists supabase_migrations")
    await connection.execute(
        "create table if not exists supabase_migrations.schema_migrations"
        " (version text primary key, statements text[], name text)"
    )
    for each in migrations():
        await connection.execute(
            "insert into supabase_migrations.schema_migrations (version, name) values (%s, %s)"
            " on conflict (version) do nothing",
            (each.version, each.name),
        )
