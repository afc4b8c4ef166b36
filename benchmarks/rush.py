"""Four hundred students book the same session of four hundred seats at the same moment."""

from __future__ import annotations

from statistics import median

from harness.cluster import Database, cluster
from harness.load import Load, booking_request, send
from harness.report import Options, Report
from harness.servers import Server, is_proved, serve

TITLE = "400 students, one session of 400 seats, all at once over HTTP"
SECONDS = 25
STUDENTS = 400
CONTACTS = 30_000
CLIENTS = 16
SQL_EACH = 125


def run(options: Options) -> Report:
    """Rounds of the function alone and of the rush, each on a fresh session with fresh students."""
    report = Report("./dev bench rush", TITLE)
    with cluster() as postgres:
        database = postgres.database()
        database.fill(CONTACTS)
        with serve(database) as server:
            sessions = database.session_ids()
            warm_up = [booking_request(student, sessions[student % 200]) for student in range(STUDENTS)]
            send(server.port, warm_up).expect("201")
            database.vacuum()
            pairs = []
            for number in range(options.rounds):
                sql_s = _function_alone_s(database, number)
                pairs.append((sql_s, _rush(database, server, number)))
        is_proved(database)
    sql_s = median(sql_s for sql_s, _ in pairs)
    loads = [load for _, load in pairs]
    ratio = median(load.seconds / sql_s for sql_s, load in pairs)
    report.show(f"the function alone, {CLIENTS} clients, {STUDENTS} bookings", f"{sql_s:.2f} s")
    report.demand_ratio(
        "all 400 answered", f"{median(load.seconds for load in loads):.2f} s", ratio=ratio, at_most=2.5
    )
    booked = min(load.statuses.get("201", 0) for load in loads)
    report.demand("201 in every round", booked, f"of {STUDENTS}", at_least=STUDENTS)
    p50 = median(load.percentile_ms(0.5) for load in loads)
    report.note(f"Median of {len(loads)} rounds; half of the students have their answer within {p50:.0f} ms.")
    report.note("tallybook verify: clean")
    return report


def _function_alone_s(database: Database, number: int) -> float:
    """What 400 bookings take at the steady rate of one session; starting backends is left out."""
    variables = {"n": 0, "base": 10_000 + number * CLIENTS * SQL_EACH, "width": SQL_EACH, "session": number}
    done = database.pgbench("book_hot", clients=CLIENTS, variables=variables, each=SQL_EACH)
    return STUDENTS / done.per_s


def _rush(database: Database, server: Server, number: int) -> Load:
    session = database.open_session(STUDENTS, days_ahead=500 + number)
    first = STUDENTS * (number + 1)
    return send(
        server.port,
        [booking_request(student, session) for student in range(first, first + STUDENTS)],
        burst=True,
    )
