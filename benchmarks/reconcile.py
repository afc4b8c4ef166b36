"""`tallybook sync reconcile` where nothing differs: its calls, what it writes on either side, its memory."""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.cluster import Database, cluster
from harness.report import Options, Report
from harness.servers import Server, ask, environment, is_proved, lift_limits, run_command, simulator
from harness.watch import Watched, watched

TITLE = "tallybook sync reconcile: a portal of 100,000 contacts in which nothing differs"
SECONDS = 190
SIZES = (10_000, 100_000)
MOCK_EXAMS, BOOKINGS = 40, 500
FLAT = 1.25
ALLOWED_PER_S = 19 * 0.40
READS = ("list", "read", "batch_read", "search", "properties", "schemas", "associations", "account")
COMPARED = ("contacts", "mock_exams", "bookings")
"""Each of their rows says when it was compared last (`synced_at`)."""
BOOKKEEPING = ("job_runs", "sync_state", "crm_call_slots", "crm_call_state", "crm_call_counts")
"""What else is written: whose turn it is, how far it is, and which calls were made."""


@dataclass(frozen=True, slots=True)
class Reconcile:
    """One run: its calls to HubSpot by kind, and the rows it wrote by table."""

    contacts: int
    ran: Watched
    calls: dict[str, int]
    rows: dict[str, int]


def run(options: Options) -> Report:
    """The real command, after import and push have made both sides equal."""
    del options
    report = Report("./dev bench reconcile", TITLE)
    first_mb = 0.0
    for contacts in SIZES:
        portal = simulator(
            contacts=contacts, limits="professional", latency_ms=0, mock_exams=MOCK_EXAMS, bookings=BOOKINGS
        )
        with cluster() as postgres, portal as hubspot:
            database = postgres.database()
            env = environment(database, hubspot, **lift_limits(hubspot))
            _both_sides(env)
            one = _reconcile(contacts, database, hubspot, env)
            is_proved(database)
        first_mb = first_mb or one.ran.peak_mb
        _tell(report, one, first_mb)
    report.note(
        f"Each portal also has {MOCK_EXAMS} mock exams and {BOOKINGS} bookings, with calls of their own."
    )
    report.note("tallybook verify: clean")
    return report


def _both_sides(env: dict[str, str]) -> None:
    """Everything imported, HubSpot told what it did not know, and that read back."""
    run_command("doctor", "--fix", "--yes", env=env, accept=(0, 1))
    run_command("import", env=env)
    run_command("sync", "push", env=env)
    run_command("sync", "reconcile", env=env)


def _reconcile(contacts: int, database: Database, hubspot: Server, env: dict[str, str]) -> Reconcile:
    # An hour after a comparison the next one says so again; a daily one always does.
    database.run("compared_yesterday")
    database.vacuum()
    before, calls, rows = database.value("state_but_synced_at"), _calls(hubspot), _rows_written(database)
    ran = watched("sync", "reconcile", database=database, hubspot=hubspot, env=env)
    calls, rows = _more(calls, _calls(hubspot)), _more(rows, _rows_written(database))
    counts = ran.said["counts"]
    everything = contacts + MOCK_EXAMS + BOOKINGS
    if not ran.said["done"] or counts["seen"] != everything or counts["ours"] != everything:
        raise RuntimeError(f"Not everything was compared: {ran.said}")
    if database.value("state_but_synced_at") != before:
        raise RuntimeError("A reconcile of equal sides changed more than the time of comparison.")
    return Reconcile(contacts, ran, calls, rows)


def _tell(report: Report, one: Reconcile, first_mb: float) -> None:
    size, counts, total = f"{one.contacts:,} contacts", one.ran.said["counts"], sum(one.calls.values())
    # The smaller is cut into as many ranges as the larger, each with fewer full pages.
    report.demand_ratio(
        f"{size}: calls, and per 100 records",
        f"{total} calls",
        ratio=total / (counts["seen"] / 100),
        at_most=1.1 if one.contacts == max(SIZES) else 1.5,
    )
    written = sum(number for kind, number in one.calls.items() if kind not in READS)
    report.demand(f"{size}: writes to HubSpot", written, "", at_most=0)
    changed = sum(number for table, number in one.rows.items() if table not in (*BOOKKEEPING, *COMPARED))
    report.demand(f"{size}: rows written here but for bookkeeping", changed, "", at_most=0)
    found = sum(counts.get(name, 0) for name in ("unseen", "read_again", "not_stored", "ahead", "unpushed"))
    report.demand(f"{size}: differences found", found, "", at_most=0)
    report.show(f"{size}: without limits", f"{one.ran.seconds:.1f} s")
    report.demand_ratio(
        f"{size}: peak memory", f"{one.ran.peak_mb:.0f} MB", ratio=one.ran.peak_mb / first_mb, at_most=FLAT
    )
    report.note(f"{size}: it says {counts['calls']} calls; made were {_listed(one.calls)}.")
    compared = sum(one.rows.get(table, 0) for table in COMPARED)
    others = {table: number for table, number in one.rows.items() if table in BOOKKEEPING}
    report.note(
        f"{size}: bookkeeping is the time of comparison in {compared:,} rows, and {_listed(others)}; "
        f"{one.ran.cpu_s:.1f} s of CPU."
    )
    report.note(
        f"{size}: {total / ALLOWED_PER_S:.0f} s at {ALLOWED_PER_S:g} calls a second, which is what "
        "a reconcile may use of Professional limits."
    )


def _calls(hubspot: Server) -> dict[str, int]:
    calls: dict[str, int] = ask(hubspot, "GET", "/_simulator/stats")["calls"]
    return calls


def _rows_written(database: Database) -> dict[str, int]:
    while database.value("other_connections"):
        time.sleep(0.05)
    rows: dict[str, int] = database.value("rows_written")
    return rows


def _more(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {
        name: number - before.get(name, 0) for name, number in after.items() if number > before.get(name, 0)
    }


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in numbers.items())
