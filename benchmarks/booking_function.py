"""The booking function alone, without HTTP or Python: one hot session against two hundred."""

from __future__ import annotations

from statistics import median

from harness.cluster import Database, PgbenchRun, cluster
from harness.report import Options, Report

TITLE = "the booking function alone (pgbench): one hot session against 200"
SECONDS = 55
CONTACTS = 40_000
CLIENTS = (8, 16, 32)
ROUND_S = 3


def run(options: Options) -> Report:
    """At each number of clients, hot and many in turn; what was booked is taken back after each pair."""
    report = Report("./dev bench booking_function", TITLE)
    with cluster() as postgres:
        database = postgres.database()
        database.fill(CONTACTS)
        for clients in CLIENTS:
            pairs = []
            for _ in range(max(1, options.rounds - 1)):
                hot_cpu, hot = _measure(database, "book_hot", clients, base=0)
                _, many = _measure(database, "book_many", clients, base=CONTACTS // 2)
                _check(database, hot.transactions + many.transactions)
                pairs.append((hot.per_s, many.per_s, hot_cpu))
                database.run("reset")
                database.vacuum()
            many_rate = median(many for _, many, _ in pairs)
            ratio = median(hot / many for hot, many, _ in pairs)
            hot_rate, cpu_ms = median(hot for hot, _, _ in pairs), median(cpu for _, _, cpu in pairs)
            report.demand_ratio(
                f"{clients} clients, hot of many",
                f"{hot_rate:,.0f}/s of {many_rate:,.0f}/s",
                ratio=ratio,
                at_least=0.55,
            )
            report.note(f"{clients} clients: {cpu_ms:.2f} ms of database CPU per booking on the hot session")
    return report


def _measure(database: Database, script: str, clients: int, *, base: int) -> tuple[float, PgbenchRun]:
    before_s = database.cluster.cpu_s()
    variables = {"n": 0, "base": base, "width": CONTACTS // 2 // clients, "session": 1}
    done = database.pgbench(script, clients=clients, variables=variables, seconds=ROUND_S)
    return (database.cluster.cpu_s() - before_s) * 1000 / done.transactions, done


def _check(database: Database, calls: int) -> None:
    """Raises when a call was refused: a fast no is no speed."""
    booked = database.value("live_bookings")
    if booked != calls:
        raise RuntimeError(f"{calls} calls made {booked} bookings")
