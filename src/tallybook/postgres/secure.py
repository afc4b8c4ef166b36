"""Closes the schema again, as its owner."""

from __future__ import annotations

import psycopg
from psycopg import AsyncConnection

from tallybook.domain.errors import SetupError
from tallybook.postgres.queries import sql


async def secure_schema(uri: str) -> None:
    """Revokes what is open, grants what the application needs, and proves it. Raises SetupError."""
    try:
        async with await AsyncConnection.connect(uri, connect_timeout=5) as connection:
            await connection.execute(sql("secure_schema"))
    except psycopg.Error as error:
        raise SetupError(
            f"the schema could not be closed: {error.diag.message_primary or error}",
            hint="Run it as the owner of the schema: set DATABASE_MIGRATION_URL.",
        ) from error
