"""Four hundred students, none of whom PostgreSQL knows, at the same moment; HubSpot slow and strict."""

from __future__ import annotations

from statistics import median

from harness.cluster import cluster
from harness.load import send, simulated_check
from harness.report import Options, Report
from harness.servers import ask, is_proved, serve, simulator

TITLE = "400 students none of whom is stored, HubSpot at 300 ms a call and strict limits"
SECONDS = 30
STUDENTS = 400
CONTACTS = 1_247


def run(options: Options) -> Report:
    """Rounds with an emptied table of contacts, each on a server that was just started."""
    report = Report("./dev bench misses_400", TITLE)
    loads, calls = [], 0
    with cluster() as postgres, simulator(contacts=CONTACTS, limits="strict", latency_ms=300) as hubspot:
        database = postgres.database()
        for _ in range(options.rounds):
            database.run("forget_contacts")
            # A new server each time: it remembers nobody either.
            with serve(database, simulator=hubspot, HUBSPOT_CALLS_PER_S="10") as server:
                requests = [simulated_check(contact) for contact in range(STUDENTS)]
                loads.append(send(server.port, requests, burst=True))
        stats = ask(hubspot, "GET", "/_simulator/stats")
        calls = stats["total"]
        is_proved(database)
    slowest = max(load.seconds for load in loads)
    answered = min(load.statuses.get("200", 0) for load in loads)
    report.demand("the last of 400 answered, slowest round", slowest, "s", at_most=4)
    report.demand("successes, worst round", answered, f"of {STUDENTS}", at_least=STUDENTS)
    report.demand("429 from HubSpot", stats["rejected_429"], "", at_most=0)
    report.show(
        "half of them answered within", f"{median(load.percentile_ms(0.5) for load in loads):,.0f} ms"
    )
    report.show("calls to HubSpot for 400 students", f"{calls / len(loads):.1f}")
    report.note(
        f"{len(loads)} rounds, each with no contact stored; fullest second {stats['peaks']['window']} calls."
    )
    for load in loads:
        report.notes += [f"failure: {text}" for text in load.failures[:1]]
    return report
