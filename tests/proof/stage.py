"""What the proof plays on: PostgreSQL, a portal, a server and workers, processes that can be killed."""

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus

import httpx
import psycopg

from e2e.service import BIN, Program, Simulator, clean_environment, environment_of
from tallybook.api.secrets import hash_api_secret
from tallybook.postgres.embedded import EmbeddedServer

CLIENT_SECRET = "the client secret of the app in the portal"
KEY_ID, KEY_SECRET = "proof", "s" * 32
SCOPES = ["students", "credits"]
_READY_WITHIN_S = 60.0
# Time passes for whoever held a lease: only the clock is moved, as if the minute were over.
_LEASES_END = (
    "update tallybook.outbox set leased_until = clock_timestamp() where leased_until is not null",
    (
        "update tallybook.inbox set leased_until = clock_timestamp(), next_attempt_at = clock_timestamp()"
        " where leased_until is not null"
    ),
    "update tallybook.job_runs set leased_until = clock_timestamp() where leased_until is not null",
)


class CommandFailed(Exception):
    """A `tallybook` command ended with another code than 0."""


@dataclass
class Stage:
    """The parts in play. `postgres` is None where the database server belongs to somebody else."""

    directory: Path
    uri: str
    simulator: Simulator
    workers_wanted: int = 2
    postgres: "OwnPostgres | None" = None
    serve_port: int = 0
    settings: dict[str, str] = field(default_factory=dict)
    server: Program | None = None
    workers: list[Program] = field(default_factory=list)
    killed: dict[str, int] = field(default_factory=dict)
    died: list[str] = field(default_factory=list)
    _http: httpx.AsyncClient | None = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.serve_port}"

    @property
    def webhook_url(self):
        return f"{self.url}/api/webhooks/hubspot"

    @property
    def environment(self):
        ours = {
            "HUBSPOT_CLIENT_SECRET": CLIENT_SECRET,
            "TALLYBOOK_PUBLIC_URL": self.url,
            "TALLYBOOK_LOG_LEVEL": "info",
        }
        return environment_of(self.uri, self.simulator, **(ours | self.settings))

    async def begin(self, *, sessions=(), server=True):
        """Properties made, everything imported, `sessions` created here; server and workers run."""
        self.serve_port = self.serve_port or free_port()
        await self.command("doctor", "--fix", "--yes", accept=(0, 1))
        await self.command("import")
        for options in sessions:
            await self.command("exam", "create", *options)
        await self._store_key()
        if server:
            await self.start_server()
        for _ in range(self.workers_wanted):
            self.start_worker()

    async def _store_key(self):
        # Made up here rather than by `key create`, which says it once and lives in one database.
        secret_key = self.environment["TALLYBOOK_SECRET_KEY"]
        await self.run(
            "insert into tallybook.api_keys (id, name, secret_hash, scopes) values (%s, 'proof', %s, %s)"
            " on conflict do nothing",
            KEY_ID,
            hash_api_secret(secret_key, key_id=KEY_ID, secret=KEY_SECRET),
            SCOPES,
        )

    # -- processes ---------------------------------------------------------------------------------

    async def start_server(self):
        """`tallybook serve` on its old port, ready."""
        self.server = self._serve()
        async with asyncio.timeout(_READY_WITHIN_S):
            while not await self.is_ready():
                if self.server.process.poll() is not None:
                    # PostgreSQL may be down this moment, and `serve` refuses to start without it.
                    self.server.stop()
                    self.server = self._serve()
                await asyncio.sleep(0.1)

    def _serve(self):
        argv = [BIN / "tallybook", "serve", "--port", str(self.serve_port)]
        return Program(argv, directory=self.directory, name="server", environment=self.environment)

    async def is_ready(self):
        """Whether the server says so."""
        try:
            return (await self.http.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def http(self):
        if self._http is None:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                timeout=20.0,
                trust_env=False,
                limits=httpx.Limits(max_connections=64),
                headers={"authorization": f"Bearer tb_{KEY_ID}_{KEY_SECRET}"},
            )
        return self._http

    def start_worker(self):
        """One more `tallybook worker`."""
        worker = Program(
            [BIN / "tallybook", "worker"],
            directory=self.directory,
            name="worker",
            environment=self.environment,
        )
        self.workers.append(worker)
        return worker

    def kill_worker(self, number):
        """kill -9 of a worker; another takes its place."""
        self.workers.pop(number).kill()
        self._count("worker")
        self.start_worker()

    async def kill_server(self):
        """kill -9 of the server; another takes its place."""
        self.server.kill()
        self._count("server")
        await self.start_server()

    async def kill_postgres(self):
        """kill -9 of PostgreSQL's first process; a new one recovers on the same directory."""
        await self.postgres.kill()
        self._count("postgres")
        await self.postgres.start_again()

    def revive(self):
        """Replaces workers that ended by themselves; remembers all but those that found no database."""
        dead = [each for each in self.workers if each.process.poll() is not None]
        for each in dead:
            self.workers.remove(each)
            each.stop()
            said = each.text()
            if "DATABASE_UNAVAILABLE" not in said and "cannot be reached" not in said:
                self.died.append(f"ended with {each.process.returncode}: {said[-1500:]}")
            self.start_worker()
        return len(dead)

    def _count(self, what):
        self.killed[what] = self.killed.get(what, 0) + 1

    async def command(self, *arguments, accept=(0,)):
        """What `tallybook ...` prints. Raises CommandFailed."""
        process = await asyncio.create_subprocess_exec(
            str(BIN / "tallybook"),
            *arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.directory,
            env=clean_environment() | self.environment,
        )
        said, failed = await process.communicate()
        if process.returncode not in accept:
            raise CommandFailed(
                f"tallybook {' '.join(arguments)} ended with {process.returncode}:\n"
                f"{failed.decode()[-2000:]}\n{said.decode()[-4000:]}"
            )
        return said.decode()

    async def json(self, *arguments, accept=(0,)):
        """What a command prints with `--json`."""
        return json.loads(await self.command(*arguments, "--json", accept=accept))

    async def end_leases(self):
        """As if a minute had passed for everybody who holds a lease."""
        for statement in _LEASES_END:
            await self.run(statement)

    # -- the database, past everything -------------------------------------------------------------

    async def run(self, statement, *values):
        """One statement as the owner; waits for a server that is just recovering."""
        until = time.monotonic() + _READY_WITHIN_S
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self.uri, autocommit=True) as connection:
                    cursor = await connection.execute(statement, values or None)
                    return await cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.1)

    async def close(self):
        """Ends every process."""
        for each in self.workers:
            each.process.send_signal(signal.SIGTERM)
        for each in [*self.workers, *([self.server] if self.server else [])]:
            await asyncio.to_thread(each.stop)
        if self._http is not None:
            await self._http.aclose()


class OwnPostgres:
    """An embedded PostgreSQL of the proof's own that can be killed and recovers at the same address."""

    def __init__(self, directory, database):
        self._directory, self._database = directory, database
        self.embedded = EmbeddedServer.start(directory)
        # Each start has a socket of its own; the link is the address that stays.
        self._link = Path(tempfile.mkdtemp(prefix="tb-proof-")) / "socket"
        self._repoint()

    def _repoint(self):
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(self.embedded.socket_dir)

    def uri(self, database=None):
        """The address of a database, the same after each restart."""
        uri = self.embedded.uri(database or self._database)
        return uri.replace(quote_plus(str(self.embedded.socket_dir)), quote_plus(str(self._link)))

    async def kill(self):
        """kill -9; the data directory stays as it was at that instant."""
        os.kill(self.embedded.pid, signal.SIGKILL)
        await asyncio.to_thread(self.embedded.stop)

    async def start_again(self):
        """A new server on the same directory."""
        self.embedded = await asyncio.to_thread(EmbeddedServer.start, self._directory)
        self._repoint()

    def stop(self):
        """Ends it in order."""
        self.embedded.stop()
        self._link.unlink(missing_ok=True)
        self._link.parent.rmdir()


def free_port():
    """A port of 127.0.0.1 nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_key():
    """An idempotency key nobody used."""
    return secrets.token_hex(12)
