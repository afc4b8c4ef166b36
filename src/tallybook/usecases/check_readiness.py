"""Whether this release can serve on this database, asked at the start and by `/readyz`."""

from __future__ import annotations

from enum import StrEnum

from tallybook.domain.catalog import Catalog
from tallybook.domain.errors import DatabaseUnavailable, SetupError
from tallybook.postgres.migrate import SchemaStatus, check_release, status_of
from tallybook.postgres.pool import Database


class Readiness(StrEnum):
    """The word `/readyz` answers with."""

    READY = "ready"
    SCHEMA_BEHIND = "schema_behind"
    CATALOG_DIFFERS = "catalog_differs"
    DATABASE_DOWN = "database_down"


async def check_readiness(db: Database, catalog: Catalog, *, release: str) -> Readiness:
    """One word for what is missing, or `ready`."""
    try:
        check_release(await _schema_status(db), release=release)
        found = await _catalog_hash(db)
    except DatabaseUnavailable:
        return Readiness.DATABASE_DOWN
    except SetupError:
        return Readiness.SCHEMA_BEHIND
    return Readiness.READY if found == catalog.hash else Readiness.CATALOG_DIFFERS


async def demand_schema(db: Database, *, release: str) -> None:
    """Nothing when this release can work on this schema. Raises SetupError saying what is missing."""
    try:
        check_release(await _schema_status(db), release=release)
    except DatabaseUnavailable as error:
        raise SetupError(
            f"the database cannot be reached: {why_unavailable(error)}",
            hint="Check DATABASE_URL and that PostgreSQL runs.",
        ) from error


async def demand_readiness(db: Database, catalog: Catalog, *, release: str) -> None:
    """Nothing when this release can serve here. Raises SetupError saying what is missing and what to do."""
    await demand_schema(db, release=release)
    found = await _catalog_hash(db)
    if found != catalog.hash:
        raise SetupError(
            "the database has another catalog than this program"
            if found is not None
            else "the database has no catalog yet",
            hint="Look at the difference with: tallybook catalog check; then run: tallybook catalog apply",
        )


def why_unavailable(error: DatabaseUnavailable) -> str:
    """The first line of what the driver said; it names host and role, never a password."""
    return str(error.__cause__ or error).strip().splitlines()[0]


async def _schema_status(db: Database) -> SchemaStatus:
    row = await db.fetch_one("schema_access")
    assert row is not None
    exists, is_usable, role = row
    if exists and not is_usable:
        raise SetupError(
            f"the role {role} may not use the schema tallybook",
            hint="Set DATABASE_URL to the owner or to a role that is a member of tallybook_app.",
        )
    rows = await db.fetch_all("schema_versions") if exists else []
    return status_of([(str(version), str(min_release)) for version, min_release in rows])


async def _catalog_hash(db: Database) -> str | None:
    row = await db.fetch_one("catalog_hash")
    return None if row is None else str(row[0])
