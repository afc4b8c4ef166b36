"""The catalog as tables: booking decides from these, and from nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from tallybook.domain.catalog import Catalog
from tallybook.domain.errors import SetupError
from tallybook.postgres.queries import sql


async def apply_catalog(uri: str, catalog: Catalog) -> str | None:
    """Makes the tables say what the catalog says, in one transaction; gives the hash that was there before.

    What left the file is retired, never deleted: it can still be refunded and corrected, not booked.
    """
    try:
        async with await AsyncConnection.connect(uri, connect_timeout=5) as connection:
            cursor = await connection.execute(sql("catalog_hash"))
            before = await cursor.fetchone()
            await connection.execute(sql("apply_catalog"), {"catalog": Jsonb(_as_json(catalog))})
    except psycopg.errors.UndefinedTable as error:
        raise SetupError("the database has no Tallybook schema", hint="Run: tallybook migrate") from error
    except psycopg.Error as error:
        raise SetupError(
            f"the catalog could not be applied: {error.diag.message_primary or error}",
            hint="Nothing was changed.",
        ) from error
    return None if before is None else str(before[0])


def _as_json(catalog: Catalog) -> dict[str, Any]:
    return dataclasses.asdict(catalog)
