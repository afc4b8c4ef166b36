"""One student at a time whom PostgreSQL does not know yet, HubSpot answering after 300 ms."""

from __future__ import annotations

from harness.cluster import cluster
from harness.load import send, simulated_check
from harness.report import Options, Report
from harness.servers import ask, serve, simulator

TITLE = "one miss, HubSpot at 300 ms"
SECONDS = 25
MISSES = 30
CONTACTS = 1_247


def run(options: Options) -> Report:
    """Misses one after the other, then the same students again."""
    del options
    report = Report("./dev bench miss", TITLE)
    with (
        cluster() as postgres,
        simulator(contacts=CONTACTS, limits="professional", latency_ms=300) as hubspot,
        serve(postgres.database(), simulator=hubspot) as server,
    ):
        requests = [simulated_check(contact) for contact in range(MISSES)]
        missed = send(server.port, requests, connections=1)
        again = send(server.port, requests, connections=1)
        stats = ask(hubspot, "GET", "/_simulator/stats")
    missed.expect("200")
    again.expect("200")
    report.demand("p95 of a miss", missed.percentile_ms(0.95), "ms", at_most=600)
    report.show("p50 of a miss", f"{missed.percentile_ms(0.5):,.0f} ms")
    report.show("p50 of the same student again", f"{again.percentile_ms(0.5):,.1f} ms")
    report.demand("429 from HubSpot", stats["rejected_429"], "", at_most=0)
    report.note(f"{MISSES} misses one after the other, {stats['total']} calls to HubSpot.")
    return report
