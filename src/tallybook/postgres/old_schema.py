"""The tables of the system Tallybook takes over from, read page by page, whatever columns they grew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from tallybook.domain.errors import SetupError
from tallybook.postgres.migrate import connect
from tallybook.postgres.queries import sql as query

OldRow = Mapping[str, str | None]
"""A row by our names of its columns; a column the table has not got is None."""

PAGE_ROWS = 100
_CONTACTS = "hubspot_contact_credits"
_BOOKINGS = "hubspot_bookings"
# Our name: the names it had there over the years, the newest first.
_CONTACT_COLUMNS: Mapping[str, Sequence[str]] = {
    "id": ("id",),
    "hubspot_id": ("hubspot_id",),
    "student_id": ("student_id",),
    "email": ("email",),
    "firstname": ("firstname",),
    "lastname": ("lastname",),
    "ndecc_exam_date": ("ndecc_exam_date",),
}
_BOOKING_COLUMNS: Mapping[str, Sequence[str]] = {
    "id": ("id",),
    "hubspot_id": ("hubspot_id",),
    "booking_id": ("booking_id",),
    "mock_exam_id": ("associated_mock_exam", "mock_exam_id"),
    "contact_id": ("associated_contact_id", "contact_id"),
    "student_id": ("student_id",),
    "email": ("student_email", "email"),
    "status": ("is_active", "booking_status", "status"),
    "attendance": ("attendance",),
    "attending_location": ("attending_location",),
    "dominant_hand": ("dominant_hand",),
    "token_used": ("token_used",),
    "token_refunded": ("token_refunded",),
    "token_refunded_at": ("token_refunded_at",),
    "idempotency_key": ("idempotency_key",),
    "created_at": ("created_at",),
    "updated_at": ("updated_at",),
}
_NEEDED = {_CONTACTS: ("student_id", "email"), _BOOKINGS: ("id", "mock_exam_id", "status")}

_Connection = AsyncConnection[tuple[Any, ...]]


class OldSchema:
    """One moment of the old tables; nothing is ever written there."""

    def __init__(self, connection: _Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    def contacts(self, credit_columns: Sequence[str]) -> AsyncIterator[list[OldRow]]:
        """Pages of people, each number under its column's name. Raises SetupError."""
        names = {**_CONTACT_COLUMNS, **{name: (name,) for name in credit_columns}}
        return self._pages(_CONTACTS, names)

    def bookings(self) -> AsyncIterator[list[OldRow]]:
        """Pages of bookings. Raises SetupError."""
        return self._pages(_BOOKINGS, _BOOKING_COLUMNS)

    async def _pages(self, table: str, names: Mapping[str, Sequence[str]]) -> AsyncIterator[list[OldRow]]:
        there = await self._columns(table)
        found = {
            ours: next((each for each in theirs if each in there), None) for ours, theirs in names.items()
        }
        missing = [ours for ours in _NEEDED[table] if found[ours] is None]
        if missing:
            raise SetupError(f"{self._schema}.{table} has no column for {', '.join(missing)}.")
        # As texts: the same column was a date here and a timestamp there.
        values = [
            sql.SQL("{}::text").format(sql.Identifier(name)) if name else sql.SQL("null")
            for name in found.values()
        ]
        statement = sql.SQL("select {} from {}").format(
            sql.SQL(", ").join(values), sql.Identifier(self._schema, table)
        )
        async with self._connection.cursor(f"old_{table}") as cursor:
            await cursor.execute(statement)
            while rows := await cursor.fetchmany(PAGE_ROWS):
                yield [dict(zip(found, row, strict=True)) for row in rows]

    async def _columns(self, table: str) -> set[str]:
        cursor = await self._connection.execute(
            query("old/columns"), {"schema": self._schema, "table": table}
        )
        rows = await cursor.fetchall()
        if not rows:
            raise SetupError(
                f"There is no {self._schema}.{table}.",
                hint="Name the schema: --from-old-schema NAME, and its database: --old-database-url.",
            )
        if any(is_hidden for _, is_hidden in rows):
            raise SetupError(
                f"Row level security hides rows of {self._schema}.{table} from this role.",
                hint="Let --old-database-url name the owner of the old tables.",
            )
        return {name for name, _ in rows}


@asynccontextmanager
async def opened_old_schema(uri: str, schema: str) -> AsyncIterator[OldSchema]:
    """The old tables as they are at this moment, read only. Raises SetupError."""
    connection = await connect(uri, "take over")
    try:
        async with connection:
            await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            await connection.set_read_only(True)
            yield OldSchema(connection, schema)
    except psycopg.Error as error:
        raise SetupError(
            f"The old tables cannot be read: {error.diag.message_primary or error}",
            hint="Check --from-old-schema and --old-database-url.",
        ) from error
