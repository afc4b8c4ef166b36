"""Our schema into a file and back, with COPY over an ordinary connection: no program of the server is needed.

The schema itself is not in the file. Migrations are its only source, so a restore applies those the backup
was made with, loads the rows, and then applies what is newer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import tuple_row

from tallybook.domain.errors import SetupError
from tallybook.postgres.backup_archive import (
    ArchiveReader,
    ArchiveWriter,
    Manifest,
    TableCopy,
    read_archive,
    written_archive,
)
from tallybook.postgres.migrate import apply, connect, lock_migrations, migrations, schema_status
from tallybook.postgres.queries import sql as query

Progress = Callable[[str, int], None]
"""(table, rows) after each table."""

_Connection = AsyncConnection[tuple[Any, ...]]
_OURS = sql.Identifier("tallybook")


async def write_backup(uri: str, file: Path, *, release: str, on_progress: Progress) -> Manifest:
    """Writes one moment of our schema into a new file, while everybody goes on working.

    Raises SetupError; then there is no file.
    """
    async with _connected(uri, "backup") as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        versions = [version for version, _ in await _rows(connection, "backup/versions")]
        tables = {name: tuple(columns) for name, columns in await _rows(connection, "backup/tables")}
        copies: dict[str, TableCopy] = {}
        with written_archive(file) as archive:
            for name, columns in tables.items():
                copies[name] = await _dump(connection, archive, name, columns)
                on_progress(name, copies[name].rows)
            manifest = Manifest(
                made_at=datetime.now(UTC).isoformat(timespec="seconds"),
                release=release,
                server=str(connection.info.server_version // 10_000),
                migrations=tuple(versions),
                tables=copies,
                # Last: sequences know no snapshot, and must not be behind the rows.
                sequences=await _sequences(connection),
            )
            archive.finish(manifest)
    return manifest


async def restore_backup(uri: str, file: Path, *, replace: bool, on_progress: Progress) -> Manifest:
    """Makes our schema what it was when the file was written, all or nothing, and puts pushing on hold.

    `replace`: also where there is something already. Raises SetupError; then nothing was changed.
    """
    with read_archive(file) as archive:
        manifest = archive.manifest
        async with _connected(uri, "restore") as connection:
            await lock_migrations(connection)
            newer = await _prepare(connection, manifest, replace=replace)
            await _load(connection, archive, on_progress)
            await apply(connection, newer)
            await connection.execute(query("backup/hold"))
            await connection.commit()
            # Plans made for empty tables would be slow until autovacuum notices.
            tables = [_table(name) for name in manifest.tables]
            await connection.execute(sql.SQL("analyze {}").format(sql.SQL(", ").join(tables)))
        return manifest


async def _prepare(connection: _Connection, manifest: Manifest, *, replace: bool) -> Sequence[Any]:
    """Our schema as the backup knew it; gives the migrations to apply after loading."""
    ours = migrations()
    unknown = set(manifest.migrations) - {each.version for each in ours}
    if unknown:
        raise SetupError(
            f"This backup was made by a newer release ({manifest.release}).",
            hint="Install that one, or a newer one.",
        )
    status = await schema_status(connection)
    if not status.applied:
        await apply(connection, [each for each in ours if each.version in manifest.migrations])
        return [each for each in ours if each.version not in manifest.migrations]
    if set(status.applied) != set(manifest.migrations):
        raise SetupError(
            "This database has another schema than the backup was made with.",
            hint="Restore into an empty database, or remove the schema first: drop schema tallybook cascade",
        )
    if not replace and (await _rows(connection, "backup/is_used"))[0][0]:
        raise SetupError(
            "This database is in use: a restore would replace all of it.",
            hint="Stop servers and workers, make a backup of what is there, then repeat with --replace.",
        )
    return []


async def _load(connection: _Connection, archive: ArchiveReader, on_progress: Progress) -> None:
    """Replaces all rows of all tables by those of the archive."""
    manifest = archive.manifest
    there = {name: tuple(columns) for name, columns in await _rows(connection, "backup/tables")}
    if {name: each.columns for name, each in manifest.tables.items()} != there:
        raise SetupError(
            "The tables of this backup are not those of its migrations.",
            hint="Nothing was changed. Was one of the two made by hand?",
        )
    every = sql.SQL(", ").join(_table(name) for name in there)
    # What the triggers guard was guarded when it was written; what they count is in the rows.
    await _triggers(connection, there, "disable")
    await connection.execute(sql.SQL("truncate {}").format(every))
    for name in await _order(connection, there):
        rows = await _fill(connection, archive, name, there[name])
        on_progress(name, rows)
    for name, (value, is_called) in manifest.sequences.items():
        await connection.execute(
            "select setval(%s::regclass, %s, %s)",
            (sql.Identifier("tallybook", name).as_string(connection), value, is_called),
        )
    await _triggers(connection, there, "enable")


async def _order(connection: _Connection, tables: Mapping[str, object]) -> list[str]:
    """The tables so that each comes after those it points to."""
    sorter: TopologicalSorter[str] = TopologicalSorter({name: set() for name in sorted(tables)})
    for name, target in await _rows(connection, "backup/references"):
        if name in tables:
            sorter.add(name, target)
    return list(sorter.static_order())


async def _triggers(connection: _Connection, tables: Mapping[str, object], verb: str) -> None:
    statement = sql.SQL("alter table {} {} trigger user")
    for name in tables:
        await connection.execute(
            statement.format(_table(name), sql.SQL("enable") if verb == "enable" else sql.SQL("disable"))
        )


async def _dump(
    connection: _Connection, archive: ArchiveWriter, name: str, columns: Sequence[str]
) -> TableCopy:
    statement = sql.SQL("copy {} ({}) to stdout").format(_table(name), _columns(columns))
    async with connection.cursor() as cursor:
        with archive.table(name) as member:
            async with cursor.copy(statement) as copy:
                async for chunk in copy:
                    member.write(chunk)
        return TableCopy(tuple(columns), cursor.rowcount, member.sha256)


async def _fill(connection: _Connection, archive: ArchiveReader, name: str, columns: Sequence[str]) -> int:
    statement = sql.SQL("copy {} ({}) from stdin").format(_table(name), _columns(columns))
    async with connection.cursor() as cursor:
        async with cursor.copy(statement) as copy:
            for chunk in archive.table(name):
                await copy.write(chunk)
        if cursor.rowcount != archive.manifest.tables[name].rows:
            raise SetupError(
                f"{name} has not as many rows as the manifest says.", hint="Nothing was changed."
            )
        return cursor.rowcount


async def _sequences(connection: _Connection) -> dict[str, tuple[int, bool]]:
    found: dict[str, tuple[int, bool]] = {}
    for (name,) in await _rows(connection, "backup/sequences"):
        statement = sql.SQL("select last_value, is_called from {}").format(_table(name))
        row = await (await connection.execute(statement)).fetchone()
        assert row is not None
        found[name] = (row[0], row[1])
    return found


async def _rows(connection: _Connection, name: str) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query(name))).fetchall()


def _table(name: str) -> sql.Composed:
    return sql.SQL("{}.{}").format(_OURS, sql.Identifier(name))


def _columns(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


@asynccontextmanager
async def _connected(uri: str, purpose: str) -> AsyncIterator[_Connection]:
    """A connection of the owner; what PostgreSQL refuses becomes one line."""
    connection = await connect(uri, purpose)
    connection.row_factory = tuple_row
    try:
        async with connection:
            await connection.execute("set lock_timeout = '10s'; set statement_timeout = 0")
            await connection.commit()
            yield connection
    except psycopg.errors.LockNotAvailable as error:
        raise SetupError(
            "Somebody is working on the tables.", hint="Stop servers and workers, then try again."
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SetupError(
            f"The {purpose} is not allowed: {error.diag.message_primary}.",
            hint="Run it as the owner of the schema: set DATABASE_MIGRATION_URL.",
        ) from error
    except psycopg.Error as error:
        raise SetupError(
            f"The {purpose} failed: {error.diag.message_primary or error}", hint="Nothing was changed."
        ) from error
