"""A booking over HTTP against a bare handler that calls the same SQL function; CPU and round trips."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count

from harness.cluster import Cluster, Database, cluster
from harness.load import Load, booking_request, send
from harness.report import Options, Report
from harness.rounds import cpu_ms_each, interleaved, median_ms, median_rate, rate_ratio
from harness.servers import Server, bare, is_proved, serve

TITLE = "bookings/create over HTTP, against a bare handler that calls the same SQL function"
SECONDS = 45
CONTACTS = 40_000
CONNECTIONS = 16
PER_ROUND = 600
ROUNDS_EACH = 4  # Many short rounds, in turn, for each one asked for: the disk has moods.
COUNTED = 100

OURS, BARE = "with everything on", "bare: same server, pool and SQL function"


@dataclass(slots=True)
class _Students:
    """Students who have not booked yet, and the 200 sessions in turn."""

    sessions: list[str]
    numbers: count[int] = field(default_factory=count)

    def bookings(self, how_many: int) -> list[bytes]:
        fresh = [next(self.numbers) for _ in range(how_many)]
        if fresh[-1] >= CONTACTS:
            raise RuntimeError("no fresh students are left; run fewer rounds")
        return [booking_request(student, self.sessions[student % len(self.sessions)]) for student in fresh]


def run(options: Options) -> Report:
    """Interleaved rounds of the same number of bookings; each has to succeed."""
    report = Report("./dev bench bookings_create", TITLE)
    with cluster() as postgres:
        database = postgres.database()
        database.fill(CONTACTS)
        students = _Students(database.session_ids())
        with ExitStack() as held:
            servers = {
                OURS: held.enter_context(serve(database)),
                BARE: held.enter_context(bare(database, "harness.bare_psycopg:book")),
            }

            def measure(name: str) -> Load:
                return _measure(postgres, servers[name], students.bookings(PER_ROUND))

            for name in servers:
                measure(name)  # Fills caches and plans.
            database.vacuum()
            found = interleaved(list(servers), measure, rounds=ROUNDS_EACH * options.rounds)
        round_trips = _statements_each(database, students)
        proved = is_proved(database)
    _tell(report, found)
    report.demand("round trips to the database per booking", round_trips, "", at_least=1, at_most=1)
    report.note(f"tallybook verify: {'clean' if proved else 'NOT clean'}")
    return report


def _measure(postgres: Cluster, server: Server, bookings: list[bytes]) -> Load:
    cpu = {"server": server.cpu_s, "database": postgres.cpu_s}
    load = send(server.port, bookings, connections=CONNECTIONS, cpu=cpu)
    load.expect("201")
    return load


def _statements_each(database: Database, students: _Students) -> float:
    """What PostgreSQL's own log says it was asked, on a connection that is warm."""
    logged = database.uri + "&options=-c%20log_statement%3Dall"
    log = database.cluster.server.log_file
    with serve(database, uri=logged, TALLYBOOK_POOL_SIZE="1") as server:
        send(server.port, students.bookings(3), connections=1).expect("201")
        before = log.stat().st_size
        send(server.port, students.bookings(COUNTED), connections=1).expect("201")
        with log.open("rb") as opened:
            opened.seek(before)
            lines = opened.read().decode(errors="replace").splitlines()
    asked = [line for line in lines if "LOG:  execute " in line or "LOG:  statement: " in line]
    return len(asked) / COUNTED


def _tell(report: Report, found: dict[str, list[Load]]) -> None:
    ours, bare_ones = found[OURS], found[BARE]
    report.show(OURS, f"{median_rate(ours):,.0f}/s")
    figure = f"{median_rate(bare_ones):,.0f}/s"
    report.demand_ratio(f"of {BARE}", figure, ratio=rate_ratio(ours, bare_ones), at_least=0.8)
    report.demand("Python CPU per booking", cpu_ms_each(ours, "server"), "ms", at_most=0.8)
    report.demand("database CPU per booking", cpu_ms_each(ours, "database"), "ms", at_most=1.5)
    report.note(
        f"{CONNECTIONS} connections, {PER_ROUND:,} fresh students a round over 200 sessions, all 201, "
        f"median of {len(ours)} interleaved rounds; p50 {median_ms(ours, 0.5):.1f} ms, "
        f"p99 {median_ms(ours, 0.99):.1f} ms."
    )
    report.note(
        f"bare: Python CPU {cpu_ms_each(bare_ones, 'server'):.2f} ms, p50 {median_ms(bare_ones, 0.5):.1f} ms."
    )
