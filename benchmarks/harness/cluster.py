"""PostgreSQL of its own for a benchmark: the embedded server, its defaults, a temporary directory."""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from harness.cpu import tree_cpu_s
from harness.paths import SQL
from tallybook.api.secrets import hash_api_secret
from tallybook.domain.catalog import default_catalog_text, parse_catalog
from tallybook.postgres.catalog_tables import apply_catalog
from tallybook.postgres.embedded import EmbeddedServer
from tallybook.postgres.migrate import migrate

SECRET_KEY = "benchmark" * 5
API_KEY = "tb_bench_" + "s" * 32
FIRST_STUDENT = 3_000_000


@dataclass(frozen=True, slots=True)
class PgbenchRun:
    """What pgbench said: transactions done and their rate without connecting."""

    transactions: int
    per_s: float


class Database:
    """One database with our schema, the catalog and an API key of scope `students`."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.uri = cluster.server.uri(name)

    def run(self, file: str, **numbers: int) -> None:
        """Runs a file of `harness/sql`; `:name` in it is a number."""
        text = (SQL / f"{file}.sql").read_text()
        for name, number in numbers.items():
            text = re.sub(rf":{name}\b", str(number), text)
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(text)

    def vacuum(self) -> None:
        """Statistics and visibility as autovacuum would have left them."""
        with psycopg.connect(self.uri, autocommit=True) as connection:
            # Empty tables are left out: known to be empty, they would be scanned in whole for as long as the
            # plans of that moment live, which no running system ever sees.
            for table in connection.execute((SQL / "filled_tables.sql").read_text()).fetchall():
                connection.execute(f"vacuum (analyze) {table[0]}")
            connection.execute("checkpoint")

    def value(self, file: str) -> Any:
        """The one value a file of `harness/sql` asks for."""
        with psycopg.connect(self.uri, autocommit=True) as connection:
            row = connection.execute((SQL / f"{file}.sql").read_text()).fetchone()
        assert row is not None
        return row[0]

    def fill(self, contacts: int) -> None:
        """Contacts with 50 credits of each type and their entries; 200 sessions with a million seats each."""
        self.run("fill", contacts=contacts)
        self.vacuum()

    def session_ids(self) -> list[str]:
        """The ids of the 200 sessions in the order of their dates."""
        with psycopg.connect(self.uri) as connection:
            return [str(row[0]) for row in connection.execute("select id from public.sessions order by n")]

    def open_session(self, seats: int, *, days_ahead: int) -> str:
        """A new session with this many seats; its id."""
        with psycopg.connect(self.uri, autocommit=True) as connection:
            text = (SQL / "open_session.sql").read_text()
            row = connection.execute(text, {"seats": seats, "days_ahead": days_ahead}).fetchone()
        assert row is not None
        return str(row[0])

    def pgbench(
        self,
        script: str,
        *,
        clients: int,
        variables: Mapping[str, object],
        seconds: int | None = None,
        each: int = 0,
    ) -> PgbenchRun:
        """Runs a script with this many clients, for `seconds` or `each` transactions per client."""
        argv = [self.cluster.server.binaries.program("pgbench"), "--no-vacuum", "--protocol=prepared"]
        argv += [f"--file={SQL / script}.pgbench", f"--client={clients}", "--jobs=2"]
        argv += [f"--time={seconds}"] if seconds else [f"--transactions={each}"]
        for name, value in variables.items():
            argv += ["--define", f"{name}={value}"]
        ran = subprocess.run([*argv, self.uri], capture_output=True, text=True, check=False)
        done = re.search(r"transactions actually processed: (\d+)", ran.stdout)
        rate = re.search(r"tps = ([\d.]+) \(without initial connection time\)", ran.stdout)
        if ran.returncode or not done or not rate:
            raise RuntimeError(f"pgbench failed: {ran.stderr[-2000:]}")
        return PgbenchRun(int(done[1]), float(rate[1]))


class Cluster:
    """The running server."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server

    def cpu_s(self) -> float:
        """CPU time all its processes have used so far, those that ended included."""
        return tree_cpu_s(self.server.pid)

    def database(self, name: str = "bench") -> Database:
        """Makes a database and brings schema, catalog and key into it."""
        with psycopg.connect(self.server.uri(), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        made = Database(self, name)
        asyncio.run(migrate(made.uri))
        catalog = parse_catalog(default_catalog_text(), file="catalog.toml")
        asyncio.run(apply_catalog(made.uri, catalog))
        secret_hash = hash_api_secret(SECRET_KEY, key_id="bench", secret="s" * 32)
        with psycopg.connect(made.uri, autocommit=True) as connection:
            connection.execute(
                "insert into tallybook.api_keys (id, name, secret_hash, scopes)"
                " values ('bench', 'benchmark', %s, '{students,credits}')",
                (secret_hash,),
            )
        return made


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A new cluster that is removed at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="tallybook-bench-") as directory,
        EmbeddedServer.start(Path(directory) / "pg") as server,
    ):
        yield Cluster(server)
