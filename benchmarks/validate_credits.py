"""A credit check over HTTP against bare handlers: what keys, validation, logs and metrics cost."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.cluster import cluster
from harness.load import Load, check_request, send
from harness.report import Options, Report
from harness.rounds import cpu_ms_each, interleaved, median_ms, median_rate, rate_ratio
from harness.servers import Server, bare, serve

TITLE = "validate-credits over HTTP: everything on, against bare handlers"
SECONDS = 50
CONTACTS = 20_000
CONNECTIONS = 16
ROUND_S = 1.0
ROUNDS_EACH = 3  # Many short rounds, in turn, for each one asked for.

OURS, BARE, FASTEST = (
    "with everything on",
    "bare: same server, pool and SQL",
    "bare: asyncpg, no reset on release",
)


def run(options: Options) -> Report:
    """Interleaved rounds against each server while the others are idle."""
    report = Report("./dev bench validate_credits", TITLE)
    requests = [check_request(student) for student in random.Random(1).sample(range(CONTACTS), CONTACTS)]
    with cluster() as postgres, ExitStack() as held:
        database = postgres.database()
        database.fill(CONTACTS)
        servers = {
            OURS: held.enter_context(serve(database)),
            BARE: held.enter_context(bare(database, "harness.bare_psycopg:check")),
        }
        with _asyncpg() as path:
            if path is None:
                report.note(f"SKIPPED: '{FASTEST}': asyncpg could not be installed here.")
            else:
                app = "harness.bare_asyncpg:check"
                servers[FASTEST] = held.enter_context(bare(database, app, python_path=[path]))
            for server in servers.values():
                _measure(server, requests)  # Fills caches and plans.
            found = interleaved(
                list(servers),
                lambda name: _measure(servers[name], requests),
                rounds=ROUNDS_EACH * options.rounds,
            )
            held.close()
    _tell(report, found)
    return report


def _measure(server: Server, requests: list[bytes]) -> Load:
    cpu = {"server": server.cpu_s}
    load = send(server.port, requests, connections=CONNECTIONS, seconds=ROUND_S, cpu=cpu)
    load.expect("200")
    return load


def _tell(report: Report, found: dict[str, list[Load]]) -> None:
    ours = found[OURS]
    report.show(OURS, f"{median_rate(ours):,.0f}/s")
    for name, bar in {BARE: 0.65, FASTEST: 0.45}.items():
        if name in found:
            figure, ratio = f"{median_rate(found[name]):,.0f}/s", rate_ratio(ours, found[name])
            report.demand_ratio(f"of {name}", figure, ratio=ratio, at_least=bar)
    for name, loads in found.items():
        report.note(
            f"{name}: Python CPU {cpu_ms_each(loads, 'server'):.3f} ms each, "
            f"p50 {median_ms(loads, 0.5):.1f} ms, p99 {median_ms(loads, 0.99):.1f} ms"
        )
    report.note(
        f"{CONNECTIONS} connections, {CONTACTS:,} contacts, median of {len(ours)} interleaved rounds of "
        f"{ROUND_S:.0f} s; the load generator itself: {cpu_ms_each(ours, 'client'):.3f} ms each."
    )


@contextmanager
def _asyncpg() -> Iterator[str | None]:
    """A directory with asyncpg, which the project itself does not need; None where it cannot be had."""
    uv = Path(sys.executable).with_name("uv")
    with tempfile.TemporaryDirectory(prefix="tallybook-bench-") as directory:
        ran = subprocess.run(
            [
                str(uv),
                "pip",
                "install",
                "--quiet",
                "--python",
                sys.executable,
                "--target",
                directory,
                "asyncpg",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            print(f"asyncpg could not be installed: {ran.stderr.strip()[-300:]}", file=sys.stderr)
        yield None if ran.returncode else directory
