"""The processes under test: `tallybook serve`, bare handlers on the same server, the simulated HubSpot."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cluster import SECRET_KEY, Database
from harness.cpu import tree_cpu_s
from harness.paths import BENCHMARKS, TALLYBOOK

_READY_WITHIN_S = 60.0
SIMULATOR_TOKEN = "pat-benchmark"
NO_LIMIT = 10_000_000


@dataclass(frozen=True, slots=True)
class Server:
    """A running process that listens."""

    name: str
    port: int
    pid: int
    ready_after_s: float
    log: Path

    def cpu_s(self) -> float:
        """CPU time of it and its workers so far."""
        return tree_cpu_s(self.pid)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


def environment(
    database: Database | None = None, simulator: Server | None = None, **more: str
) -> dict[str, str]:
    """What our commands are given, and nothing of the caller's own settings."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "PG_BINDIR")
    given = {name: os.environ[name] for name in kept if name in os.environ}
    given |= {"TALLYBOOK_SECRET_KEY": SECRET_KEY, "TALLYBOOK_LOGIN_CODE": "none"}
    if database is not None:
        given["DATABASE_URL"] = database.uri
    if simulator is not None:
        given |= {"HUBSPOT_BASE_URL": simulator.url, "HS_PRIVATE_APP_TOKEN": SIMULATOR_TOKEN}
    return given | more


@contextmanager
def serve(
    database: Database, *, simulator: Server | None = None, uri: str | None = None, **settings: str
) -> Iterator[Server]:
    """The real server, ready."""
    env = environment(database, simulator, **settings)
    if uri is not None:
        env["DATABASE_URL"] = uri
    with _started("serve", [TALLYBOOK, "serve", "--port", "{port}"], env, ready="/readyz") as server:
        yield server


@contextmanager
def bare(database: Database, app: str, *, python_path: Sequence[str] = ()) -> Iterator[Server]:
    """A bare ASGI handler (`module:attribute` of `benchmarks/`) on the server that `serve` uses."""
    path = os.pathsep.join([str(BENCHMARKS), *python_path])
    argv = [sys.executable, "-m", "harness.bare_server", app, "{port}"]
    env = environment(database, PYTHONPATH=path)
    with _started(app, argv, env, ready="/") as server:
        yield server


@contextmanager
def simulator(
    *, contacts: int, limits: str, latency_ms: float, mock_exams: int = 0, bookings: int = 0
) -> Iterator[Server]:
    """The simulated portal."""
    argv = [TALLYBOOK, "simulator", "--port", "{port}", "--limits", limits, "--latency-ms", str(latency_ms)]
    argv += ["--contacts", str(contacts), "--mock-exams", str(mock_exams), "--bookings", str(bookings)]
    argv += ["--token", SIMULATOR_TOKEN]
    with _started("simulator", argv, environment(), ready="/_simulator/stats") as server:
        yield server


@contextmanager
def push_worker(database: Database, hubspot: Server) -> Iterator[Server]:
    """A process that pushes and does nothing else."""
    argv = [sys.executable, "-m", "harness.push_worker", "{port}"]
    env = environment(database, hubspot, PYTHONPATH=str(BENCHMARKS))
    with _started("push worker", argv, env, ready="/") as worker:
        yield worker


def lift_limits(hubspot: Server) -> dict[str, str]:
    """Lets the portal answer at once and without limits; gives the settings with which we know of none."""
    limits = dict.fromkeys(("limit_calls", "limit_daily", "limit_search_per_s"), NO_LIMIT)
    ask(hubspot, "POST", "/_simulator/settings", limits | {"latency_ms": 0})
    return {"HUBSPOT_CALLS_PER_10S": str(NO_LIMIT)}


def ask(server: Server, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """One call with JSON both ways."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{method} {path} answered {answer.status}: {text[:500]!r}")
        return json.loads(text)
    finally:
        connection.close()


def run_command(*arguments: str, env: Mapping[str, str], accept: Sequence[int] = (0,)) -> str:
    """What `tallybook ...` prints, run where no `.env` lies."""
    with tempfile.TemporaryDirectory(prefix="tallybook-bench-") as directory:
        ran = subprocess.run(
            [TALLYBOOK, *arguments], env=env, cwd=directory, capture_output=True, text=True, check=False
        )
    if ran.returncode not in accept:
        raise RuntimeError(
            f"tallybook {' '.join(arguments)} failed: {ran.stderr[-2000:]} {ran.stdout[-2000:]}"
        )
    return ran.stdout


def is_proved(database: Database) -> bool:
    """Whether `tallybook verify` finds every number right."""
    run_command("verify", env=environment(database))
    return True


@contextmanager
def _started(name: str, argv: Sequence[str], env: Mapping[str, str], *, ready: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="tallybook-bench-") as directory:
        port, log = _free_port(), Path(directory) / "log"
        with log.open("wb") as out:
            began_at = time.monotonic()
            process = subprocess.Popen(
                [part.format(port=port) for part in argv],
                env=env,
                cwd=directory,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _wait_until_ready(process, port, ready, log)
            yield Server(name, port, process.pid, time.monotonic() - began_at, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    give_up_at = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < give_up_at and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.005)
    raise RuntimeError(f"a server did not become ready: {log.read_text()[-3000:]}")
