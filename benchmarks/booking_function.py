"""The booking function alone, without HTTP or Python: one hot session against two hundred."""

from __future__ import annotations

from statistics import median

from harness.cluster import Database, PgbenchRun, cluster
from harness.report import Options, Report

TITLE = "the booking function alone (pgbench): one hot session against 200"
SECONDS = 85
SCRIPTS = ("book_hot", "book_many")
STUDENTS_EACH = 16_000
EARLIER = 3_200
CONTACTS = 2 * STUDENTS_EACH + EARLIER + 100
CLIENTS = (8, 16, 32)
ROUND_S = 3


def run(options: Options) -> Report:
    """At each number of clients, hot and many in turn; what was booked is taken back after each pair."""
    report = Report("./dev bench booking_function", TITLE)
    with cluster() as postgres:
        database = postgres.database()
        database.fill(CONTACTS)
        for clients in CLIENTS:
            pairs = [_pair(database, clients, hot_first=at % 2 == 0) for at in range(options.rounds)]
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


def _pair(database: Database, clients: int, *, hot_first: bool) -> tuple[float, float, float]:
    """Rates on one session and on many, and the CPU of one, in a database that has bookings already."""
    database.run("reset")
    variables = {"n": 0, "base": 2 * STUDENTS_EACH, "width": EARLIER // clients}
    earlier = database.pgbench("book_many", clients=clients, variables=variables, each=EARLIER // clients)
    database.vacuum()
    found = {}
    for script in SCRIPTS if hot_first else reversed(SCRIPTS):
        found[script] = _measure(database, script, clients, base=SCRIPTS.index(script) * STUDENTS_EACH)
    (hot_cpu_ms, hot), (_, many) = found[SCRIPTS[0]], found[SCRIPTS[1]]
    booked = database.value("live_bookings")
    if booked != earlier.transactions + hot.transactions + many.transactions:
        raise RuntimeError("calls were refused, and a fast no is no speed")
    return hot.per_s, many.per_s, hot_cpu_ms


def _measure(database: Database, script: str, clients: int, *, base: int) -> tuple[float, PgbenchRun]:
    before_s = database.cluster.cpu_s()
    variables = {"n": 0, "base": base, "width": STUDENTS_EACH // clients, "session": 1}
    done = database.pgbench(script, clients=clients, variables=variables, seconds=ROUND_S)
    return (database.cluster.cpu_s() - before_s) * 1000 / done.transactions, done
