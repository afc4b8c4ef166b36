"""One PostgreSQL for the whole run, and a fresh database in it for each test."""

from dataclasses import dataclass, field
from itertools import count

import psycopg
from psycopg import sql

from tallybook.domain.catalog import default_catalog
from tallybook.postgres.catalog_tables import apply_catalog
from tallybook.postgres.embedded import EmbeddedServer
from tallybook.postgres.migrate import migrate

OWNER = "tallybook_owner"
SUPERUSER = "postgres"
TEMPLATE = "tallybook_template"

SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",
    "max_connections": "200",
    # A test's database lives for a moment; statistics of the template are taken once.
    "autovacuum": "off",
}


@dataclass
class TestServer:
    """The embedded server with a migrated template in it."""

    __test__ = False

    embedded: EmbeddedServer
    _numbers: count = field(default_factory=lambda: count(1))

    def uri(self, database, user=OWNER):
        """Where a database is, for one of its roles that may log in."""
        return self.embedded.uri(database, user)

    async def prepare(self):
        """Makes the template as an owner who is no superuser, as on a hosted database."""
        await self.run(
            f"create role {OWNER} login createrole",
            f"create database {TEMPLATE} owner {OWNER}",
        )
        await migrate(self.uri(TEMPLATE))
        await apply_catalog(self.uri(TEMPLATE), default_catalog())
        async with await psycopg.AsyncConnection.connect(
            self.uri(TEMPLATE, SUPERUSER), autocommit=True
        ) as admin:
            await admin.execute("vacuum (full, freeze, analyze)")

    async def create_database(self, *, template=TEMPLATE):
        """A new database like the template, owned by the owner; its name."""
        name = f"test_{next(self._numbers)}"
        await self.run(
            sql.SQL("create database {} owner {} template {} strategy wal_log").format(
                sql.Identifier(name), sql.Identifier(OWNER), sql.Identifier(template)
            )
        )
        return name

    async def drop_database(self, name):
        """Removes a database, whoever is still connected."""
        await self.run(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    async def run(self, *statements):
        """Runs statements as superuser outside any test's database."""
        async with await psycopg.AsyncConnection.connect(
            self.uri("postgres", SUPERUSER), autocommit=True
        ) as admin:
            for each in statements:
                await admin.execute(each)
