"""`tallybook import`: how long a small portal takes, the call rate of a large one, and the memory."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Any

from harness.cluster import Database, cluster
from harness.cpu import peak_rss_mb, tree_cpu_s
from harness.paths import TALLYBOOK
from harness.report import Options, Report
from harness.servers import Server, ask, environment, is_proved, simulator

TITLE = "tallybook import: 1,247 contacts, the call rate at 300 ms a call, and memory"
SECONDS = 165
SMALL = 1_247
LARGE = 60_000
WINDOWS = 3
LIMIT_CALLS, LIMIT_S = 190, 10.0
MEMORY_SIZES = (10_000, 100_000)
MILLION = 1_000_000
FLAT = 1.25
NO_LIMIT = 10_000_000


@dataclass(frozen=True, slots=True)
class Import:
    """One run of the command: how long it took, its CPU and its highest memory."""

    contacts: int
    seconds: float
    cpu_s: float
    peak_mb: float
    calls_at: list[tuple[float, int]]


def run(options: Options) -> Report:
    """The real command against the simulator, each time into an emptied database."""
    report = Report("./dev bench import" + (" --full" if options.full else ""), TITLE)
    with cluster() as postgres:
        database = postgres.database()
        with simulator(contacts=SMALL, limits="professional", latency_ms=300) as hubspot:
            small = _import(database, hubspot, SMALL)
        report.demand("1,247 contacts, HubSpot at 300 ms", small.seconds, "s", at_most=10)
        with simulator(contacts=LARGE, limits="professional", latency_ms=300) as hubspot:
            large = _import(database, hubspot, LARGE)
            refused = ask(hubspot, "GET", "/_simulator/stats")["rejected_429"]
        calls, rate = _sustained_calls(large)
        allowed = LIMIT_CALLS / LIMIT_S
        report.demand_ratio(
            f"calls a second, of {allowed:g} allowed", f"{rate:.1f}/s", ratio=rate / allowed, at_least=0.9
        )
        report.demand("429 from HubSpot", refused, "", at_most=0)
        report.note(
            f"Rate: the first {calls} calls of an import of {LARGE:,} contacts, until the next one was made, "
            f"so that a burst at the end does not count; the whole took {large.seconds:.1f} s."
        )
        _memory(report, database, full=options.full)
        is_proved(database)
    report.note("tallybook verify: clean")
    return report


def _memory(report: Report, database: Database, *, full: bool) -> None:
    """Peaks without latency and limits: what counts is how much is held, not how long."""
    peaks: list[Import] = []
    for contacts in (*MEMORY_SIZES, *([MILLION] if full else [])):
        with simulator(contacts=contacts, limits="professional", latency_ms=0) as hubspot:
            limits = {"limit_calls": NO_LIMIT, "limit_daily": NO_LIMIT, "limit_search_per_s": NO_LIMIT}
            ask(hubspot, "POST", "/_simulator/settings", limits)
            peaks.append(_import(database, hubspot, contacts, HUBSPOT_CALLS_PER_10S=str(NO_LIMIT)))
    first = peaks[0]
    for one in peaks:
        what = f"peak memory at {one.contacts:,} contacts"
        report.demand_ratio(what, f"{one.peak_mb:.0f} MB", ratio=one.peak_mb / first.peak_mb, at_most=FLAT)
        report.note(
            f"{one.contacts:,} contacts without limits: {one.seconds:.1f} s, "
            f"{one.contacts / one.seconds:,.0f} contacts/s, "
            f"{one.cpu_s * 1000 / one.contacts:.2f} ms of CPU each"
        )


def _import(database: Database, hubspot: Server, contacts: int, **settings: str) -> Import:
    database.run("forget_contacts")
    watch = _Watch(hubspot)
    began_at = time.monotonic()
    with subprocess.Popen(
        [TALLYBOOK, "import", "--json"],
        env=environment(database, hubspot, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=database.cluster.server.data_dir,
    ) as process:
        watch.start(process.pid)
        out, problems = process.communicate()
        seconds = time.monotonic() - began_at
        watch.stop()
    if process.returncode:
        raise RuntimeError(f"tallybook import failed: {problems[-2000:]}")
    said: dict[str, Any] = json.loads(out)
    if said["students"] != contacts or not said["complete"] or said["not_stored"]:
        raise RuntimeError(f"{contacts} contacts expected: {out}")
    return Import(contacts, seconds, watch.cpu_s, watch.peak_mb, watch.calls_at)


class _Watch:
    """Looks at the importing process and at the simulator's count of calls, twenty times a second."""

    def __init__(self, hubspot: Server) -> None:
        self.peak_mb = self.cpu_s = 0.0
        self.calls_at: list[tuple[float, int]] = []
        self._hubspot = hubspot
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, pid: int) -> None:
        self._thread = threading.Thread(target=self._look, args=(pid,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        assert self._thread is not None
        self._stop.set()
        self._thread.join()

    def _look(self, pid: int) -> None:
        while not self._stop.wait(0.05):
            peak_mb = peak_rss_mb(pid)
            if peak_mb is not None:
                self.peak_mb = max(self.peak_mb, peak_mb)
                self.cpu_s = max(self.cpu_s, tree_cpu_s(pid))
            self.calls_at.append((time.monotonic(), ask(self._hubspot, "GET", "/_simulator/stats")["total"]))


def _sustained_calls(one: Import) -> tuple[int, float]:
    """Calls of full windows, and their rate from the first call until the one after them."""
    calls = WINDOWS * LIMIT_CALLS
    first_at = next(at for at, total in one.calls_at if total > 0)
    next_at = next(at for at, total in one.calls_at if total > calls)
    return calls, calls / (next_at - first_at)
