"""`tallybook import`: how long a small portal takes, the call rate of a large one, and the memory."""

from __future__ import annotations

from harness.cluster import Database, cluster
from harness.report import Options, Report
from harness.servers import Server, ask, environment, is_proved, lift_limits, simulator
from harness.watch import Watched, watched

TITLE = "tallybook import: 1,247 contacts, the call rate at 300 ms a call, bookings, and memory"
SECONDS = 195
SMALL = 1_247
LARGE = 60_000
STUDENTS, SESSIONS, BOOKINGS = 10_000, 900, 10_000
PAGE = 100
WINDOWS = 3
LIMIT_CALLS, LIMIT_S = 190, 10.0
MEMORY_SIZES = (10_000, 100_000)
MILLION = 1_000_000
FLAT = 1.25


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
        _bookings(report, postgres.database("bookings"))
        _memory(report, database, full=options.full)
        is_proved(database)
    report.note("tallybook verify: clean")
    return report


def _bookings(report: Report, database: Database) -> None:
    """A booking costs PostgreSQL more than a contact: this is bound by the processors, not by HubSpot."""
    portal = simulator(
        contacts=STUDENTS, mock_exams=SESSIONS, bookings=BOOKINGS, limits="professional", latency_ms=300
    )
    with portal as hubspot:
        ran = watched("import", database=database, hubspot=hubspot, env=environment(database, hubspot))
    said = ran.said["bookings"]
    if said["read"] != BOOKINGS or said["not_stored"]:
        raise RuntimeError(f"{BOOKINGS} bookings expected: {said}")
    is_proved(database)
    rate, allowed = BOOKINGS / said["duration_s"], PAGE * LIMIT_CALLS / LIMIT_S
    report.show(
        f"{BOOKINGS:,} bookings", f"{rate:,.0f}/s, {rate / allowed:.2f} of what the allowed calls would bring"
    )


def _memory(report: Report, database: Database, *, full: bool) -> None:
    """Peaks without latency and limits: what counts is how much is held, not how long."""
    first_mb = 0.0
    for contacts in (*MEMORY_SIZES, *([MILLION] if full else [])):
        with simulator(contacts=contacts, limits="professional", latency_ms=0) as hubspot:
            ran = _import(database, hubspot, contacts, **lift_limits(hubspot))
        first_mb = first_mb or ran.peak_mb
        what = f"peak memory at {contacts:,} contacts"
        report.demand_ratio(what, f"{ran.peak_mb:.0f} MB", ratio=ran.peak_mb / first_mb, at_most=FLAT)
        report.note(
            f"{contacts:,} contacts without limits: {ran.seconds:.1f} s, "
            f"{contacts / ran.seconds:,.0f} contacts/s, "
            f"{ran.cpu_s * 1000 / contacts:.2f} ms of CPU each"
        )


def _import(database: Database, hubspot: Server, contacts: int, **settings: str) -> Watched:
    database.run("forget_contacts")
    env = environment(database, hubspot, **settings)
    ran = watched("import", database=database, hubspot=hubspot, env=env)
    if ran.said["students"] != contacts or not ran.said["complete"] or ran.said["not_stored"]:
        raise RuntimeError(f"{contacts} contacts expected: {ran.said}")
    return ran


def _sustained_calls(one: Watched) -> tuple[int, float]:
    """Calls of full windows, and their rate from the first call until the one after them."""
    calls = WINDOWS * LIMIT_CALLS
    first_at = next(at for at, total in one.calls_at if total > 0)
    next_at = next(at for at, total in one.calls_at if total > calls)
    return calls, calls / (next_at - first_at)
