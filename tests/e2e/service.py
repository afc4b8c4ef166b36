"""The whole thing as a user meets it: a server process, a simulator process and a database of their own."""

import asyncio
import itertools
import json
import os
import re
import secrets
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg import sql

from support.factories import make_contact
from tallybook.api.secrets import hash_api_secret
from tallybook.domain.catalog import parse_catalog
from tallybook.postgres.catalog_tables import apply_catalog
from tallybook.postgres.pool import Database
from tallybook.usecases.keys import create_key
from tallybook.usecases.verify import verify

SECRET_KEY = "a secret key of the end-to-end tests, long enough"
CRON_SECRET = "the secret of the scheduler"
METRICS_TOKEN = "the token of the monitoring"
FIRST_STUDENT = 1_599_000
BIN = Path(sys.executable).parent
_PATIENCE_S = 30.0
# What changes without anybody's decision: limits, the call budget, the sign-ins under way.
_NOT_DECIDED = (
    "rate_events",
    "crm_call_slots",
    "crm_call_state",
    "crm_call_counts",
    "login_challenges",
)


def clean_environment():
    """What our programs may see of this process's environment: none of its settings."""
    kept = ("PATH", "HOME", "TMPDIR", "LANG", "PG_BINDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
    return {name: os.environ[name] for name in kept if name in os.environ}


class Program:
    """A child process whose output goes to a file."""

    def __init__(self, argv, *, directory, name, environment=None):
        self.output = directory / f"{name}-{secrets.token_hex(4)}.log"
        with self.output.open("wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in argv],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=clean_environment() | (environment or {}),
            )

    def text(self):
        return self.output.read_text("utf-8", "replace")

    async def said(self, pattern):
        """The first match of the pattern in its output."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            found = re.search(pattern, self.text())
            if found:
                return found
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.text()}"
            await asyncio.sleep(0.01)
        raise AssertionError(f"it never said {pattern!r}:\n{self.text()}")

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self._close()

    def stop(self):
        """SIGTERM, and -9 when that does not help."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._close()

    def _close(self):
        if self.process.stdin is not None:
            self.process.stdin.close()


class Server(Program):
    """`tallybook serve` on a free port, or the one given."""

    def __init__(self, directory, environment, *, port=0):
        super().__init__(
            [BIN / "tallybook", "serve", "--port", str(port)],
            directory=directory,
            name="server",
            environment=environment,
        )
        self.url = ""

    async def ready(self):
        self.url = (await self.said(r'"url":"(http://[^"]+)"'))[1]
        async with httpx.AsyncClient(base_url=self.url, timeout=_PATIENCE_S) as http:
            assert (await http.get("/healthz")).status_code == 200
        return self

    def log(self, event=None, **fields):
        """Its log lines, those with this event and these fields."""
        lines = [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]
        wanted = fields if event is None else {"event": event, **fields}
        return [line for line in lines if all(line.get(name) == value for name, value in wanted.items())]


class Simulator(Program):
    """`python -m hubspot_simulator` on a free port, and its back door."""

    def __init__(self, directory, *options):
        super().__init__(
            [sys.executable, "-m", "hubspot_simulator", "--port", "0", "--stop-with-stdin", *options],
            directory=directory,
            name="simulator",
        )
        self.url = ""
        self._http = httpx.AsyncClient(timeout=_PATIENCE_S)

    async def ready(self):
        self.url = (await self.said(r"simulator on (http://\S+)"))[1]
        return self

    async def calls(self):
        """Calls let through so far."""
        return (await self._http.get(f"{self.url}/_simulator/stats")).json()

    async def edit(self, **edit):
        """A person's edit in the portal; without an id a new record."""
        answer = await self._http.post(f"{self.url}/_simulator/edits", json=edit)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    async def set(self, **settings):
        answer = await self._http.post(f"{self.url}/_simulator/settings", json=settings)
        assert answer.status_code == 200, answer.text

    async def fault(self, **fault):
        answer = await self._http.post(f"{self.url}/_simulator/faults", json=fault)
        assert answer.status_code == 200, answer.text

    async def mend(self):
        """No fault waits, no delay, the usual limits, any token."""
        await self._http.delete(f"{self.url}/_simulator/faults")
        await self.set(limits="professional", latency_ms=0, token=None)

    async def close(self):
        await self._http.aclose()
        # It keeps nothing, and stopping in order takes a second.
        self.kill()


@dataclass
class SignedIn:
    """A stored student who has signed in."""

    contact: Any
    headers: dict[str, str]

    @property
    def pair(self):
        return {"student_id": self.contact.student_id, "email": self.contact.email}


@dataclass
class Service:
    """A running server with everything around it."""

    server: Server
    simulator: Simulator
    db: Database
    uri: str
    http: httpx.AsyncClient
    environment: dict[str, str]
    directory: Path
    api_key: str = ""
    credits_key: str = ""
    _unmet: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def as_app(self):
        """The headers of a trusted back end, which names its student in each request."""
        return {"authorization": f"Bearer {self.api_key}"}

    async def new_key(self, *scopes, expires_at=None, secret_key=SECRET_KEY):
        """A new API key, stored."""
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        await create_key(
            self.db,
            key_id=key_id,
            name="end-to-end",
            secret_hash=hash_api_secret(secret_key, key_id=key_id, secret=secret),
            scopes=scopes,
            expires_at=expires_at,
            actor="cli:test",
        )
        return f"tb_{key_id}_{secret}"

    async def sign_in(self, contact, *, http=None):
        """The student with a token from the sign-in address."""
        answer = await (http or self.http).post(
            "/api/user/login", json={"student_id": contact.student_id, "email": contact.email}
        )
        assert answer.status_code == 200, answer.text
        return SignedIn(contact, {"authorization": f"Bearer {answer.json()['data']['token']}"})

    async def student(self, **given):
        """A new stored student, signed in; `credits` {type: number}."""
        given.setdefault("credits", {})
        return await self.sign_in(await make_contact(self.db, **given))

    def unmet(self):
        """A student of the portal that nobody has asked for yet, as student_id and email."""
        n = next(self._unmet)
        return {"student_id": str(FIRST_STUDENT + n), "email": f"student{n}@example.com"}

    async def check(self, pair, *, mock_type="Situational Judgment", **more):
        """validate-credits as a trusted back end."""
        return await self.http.post(
            "/api/mock-exams/validate-credits",
            json={**pair, "mock_type": mock_type},
            **({"headers": self.as_app} | more),
        )

    async def run(self, statement, *values, user=None):
        """One statement on the database as its owner."""
        async with await psycopg.AsyncConnection.connect(user or self.uri, autocommit=True) as connection:
            cursor = await connection.execute(statement, values)
            return await cursor.fetchall() if cursor.description else []

    async def fingerprint(self):
        """A digest of every table that says something about students, credits, seats or keys."""
        names = await self.run(
            "select tablename from pg_tables where schemaname = 'tallybook' and tablename <> all(%s)"
            " order by 1",
            list(_NOT_DECIDED),
        )
        digests = {}
        async with await psycopg.AsyncConnection.connect(self.uri, autocommit=True) as connection:
            for (name,) in names:
                cursor = await connection.execute(
                    sql.SQL(
                        "select count(*), md5(coalesce(string_agg(t::text, '|' order by t::text), ''))"
                        " from tallybook.{} t"
                    ).format(sql.Identifier(name))
                )
                digests[name] = await cursor.fetchone()
        return digests

    async def restart(self):
        """A new server process on the same database; the old one may be dead already."""
        self.server.stop()
        self.server = await Server(self.directory, self.environment).ready()
        await self.http.aclose()
        self.http = client(self.server.url)

    async def expect_clean(self):
        """Every number in the database adds up."""
        report = await verify(self.db)
        assert not report.violations, report.violations


def client(url, **more):
    """An HTTP client of one server that waits as long as a person would not."""
    return httpx.AsyncClient(
        base_url=url, timeout=_PATIENCE_S, limits=httpx.Limits(max_connections=100), trust_env=False, **more
    )


def environment_of(uri, simulator, **settings):
    """The settings of an ordinary server; a setting of None is left out."""
    usual = {
        "DATABASE_URL": uri,
        "TALLYBOOK_SECRET_KEY": SECRET_KEY,
        "TALLYBOOK_LOGIN_CODE": "none",
        "CRON_SECRET": CRON_SECRET,
        "TALLYBOOK_METRICS_TOKEN": METRICS_TOKEN,
        "HS_PRIVATE_APP_TOKEN": "pat-of-the-tests",
        "HUBSPOT_BASE_URL": simulator.url,
    }
    return {name: value for name, value in (usual | settings).items() if value is not None}


@asynccontextmanager
async def serving(uri, directory, *, contacts=400, verified=True, catalog=None, port=0, **settings):
    """A service on this database with `contacts` students in its portal; settings as in the environment.

    `catalog` is the text of a catalog file to use instead of the packaged one.
    """
    if catalog is not None:
        file = directory / "catalog.toml"
        file.write_text(catalog, "utf-8")
        await apply_catalog(uri, parse_catalog(catalog, file=str(file)))
        settings["TALLYBOOK_CATALOG"] = str(file)
    simulator = Simulator(directory, "--contacts", str(contacts))
    server = None
    db = Database(uri, size=4)
    try:
        await simulator.ready()
        environment = environment_of(uri, simulator, **settings)
        server = await Server(directory, environment, port=port).ready()
        service = Service(
            server=server,
            simulator=simulator,
            db=db,
            uri=uri,
            http=client(server.url),
            environment=environment,
            directory=directory,
        )
        service.api_key = await service.new_key("students")
        service.credits_key = await service.new_key("credits")
        try:
            yield service
            if verified:
                await service.expect_clean()
        finally:
            await service.http.aclose()
            service.server.stop()
    finally:
        if server is not None:
            server.stop()
        await simulator.close()
        await db.close()


def code_of(answer):
    """The code of a refusal, its envelope checked on the way."""
    body = answer.json()
    assert set(body) == {"success", "error", "request_id"}, body
    assert body["success"] is False
    assert set(body["error"]) == {"code", "message", "details"}, body
    assert body["request_id"] == answer.headers["x-request-id"]
    return body["error"]["code"]


def refused(answer, status, code):
    """Checks a refusal and gives its details."""
    assert (answer.status_code, code_of(answer)) == (status, code), answer.text
    return answer.json()["error"]["details"]


def data_of(answer, status=200):
    """The data of a success, its envelope checked on the way."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() - {"message"} == {"success", "data"}, body
    assert body["success"] is True
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["x-request-id"])
    return body["data"]


def is_instant(text):
    """Whether this is an instant in UTC as ISO 8601."""
    return datetime.fromisoformat(text).tzinfo is UTC and text.endswith("Z")
