"""How far HubSpot is behind while 100 bookings a second are made, and what telling it costs in calls."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg

from harness.cluster import Database, cluster
from harness.load import Load, send, simulated_booking
from harness.report import Options, Report, percentile
from harness.servers import (
    SIMULATOR_TOKEN,
    Server,
    ask,
    environment,
    is_proved,
    push_worker,
    run_command,
    serve,
    simulator,
)

TITLE = "100 bookings a second, Professional limits, 300 ms a call: how far HubSpot is behind"
SECONDS = 110
PER_S = 100
LOAD_S = 35
FULL_LOAD_S = 120
SESSIONS = 200
SEED = 7
WARM_UP = 300
BOOKINGS_OBJECT = "2-50158943"
_DRAIN_WITHIN_S = 60.0


def run(options: Options) -> Report:
    """One constant load, then a look at when each booking and each balance appeared in HubSpot."""
    report = Report("./dev bench push" + (" --full" if options.full else ""), TITLE)
    bookings = PER_S * (FULL_LOAD_S if options.full else LOAD_S)
    contacts = WARM_UP + bookings
    with (
        cluster() as postgres,
        simulator(contacts=contacts, limits="professional", latency_ms=300) as hubspot,
    ):
        database = postgres.database()
        sessions = _both_sides(database, hubspot)
        choice = random.Random(SEED).choice
        with serve(database, simulator=hubspot) as server, push_worker(database, hubspot) as worker:
            _drained(database)
            warm_up = [simulated_booking(n, choice(sessions)) for n in range(WARM_UP)]
            send(server.port, warm_up, per_s=PER_S).expect("201")
            _drained(database)
            before, cpu_s = ask(hubspot, "GET", "/_simulator/stats"), worker.cpu_s()
            requests = [simulated_booking(n, choice(sessions)) for n in range(WARM_UP, contacts)]
            load = send(server.port, requests, per_s=PER_S)
            load.expect("201")
            behind_s = _drained(database)
            after = ask(hubspot, "GET", "/_simulator/stats")
            cpu_s = worker.cpu_s() - cpu_s
        with _without_limits(hubspot):
            lags, balance_lags = _booking_lags(database, hubspot), _balance_lags(database, hubspot)
        is_proved(database)
    if len(lags) != contacts or len(balance_lags) != contacts:
        raise RuntimeError(f"{contacts} expected, found {len(lags)} bookings, {len(balance_lags)} balances")
    _tell(report, load, before, after, lags=lags[WARM_UP:], balance_lags=balance_lags[WARM_UP:])
    report.show("empty after the last booking", f"{behind_s:.1f} s")
    report.note(f"The pushing process used {1000 * cpu_s / bookings:.2f} ms of CPU a booking.")
    report.note("Lag: from the commit here to the moment HubSpot applied it, by each booking's own times.")
    report.note("tallybook verify: clean")
    return report


def _tell(
    report: Report,
    load: Load,
    before: dict[str, Any],
    after: dict[str, Any],
    *,
    lags: list[float],
    balance_lags: list[float],
) -> None:
    calls = after["total"] - before["total"]
    report.show("bookings a second over HTTP", f"{load.per_s:.0f}/s for {load.seconds:.0f} s")
    report.demand("p95 of a booking's lag", percentile(lags, 0.95), "s", at_most=5)
    report.demand("p95 of a balance's lag", percentile(balance_lags, 0.95), "s", at_most=5)
    report.show("p50, max of a booking's lag", f"{percentile(lags, 0.5):.2f} s, {max(lags):.2f} s")
    report.show(
        "p50, max of a balance's lag", f"{percentile(balance_lags, 0.5):.2f} s, {max(balance_lags):.2f} s"
    )
    report.demand_ratio(
        "push calls per booking",
        f"{calls} calls",
        ratio=calls / load.answers,
        at_most=0.05,
    )
    report.demand("429 from HubSpot", after["rejected_429"] - before["rejected_429"], "", at_most=0)
    kinds = {
        kind: number - before["calls"].get(kind, 0)
        for kind, number in after["calls"].items()
        if number > before["calls"].get(kind, 0)
    }
    report.note(
        f"{calls / load.seconds:.1f} calls a second of 19: "
        + ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    )


def _both_sides(database: Database, hubspot: Server) -> list[str]:
    """Everybody imported, with credits to spend; the sessions are new and HubSpot has to be told of them."""
    env = environment(database, hubspot)
    run_command("doctor", "--fix", "--yes", env=env, accept=(0, 1))
    run_command("import", env=env)
    sessions = [database.open_session(1_000_000, days_ahead=20 + day) for day in range(SESSIONS)]
    database.run("credits_to_spend")
    database.vacuum()
    return sessions


def _drained(database: Database) -> float:
    """Waits until nothing waits for HubSpot; the seconds it took."""
    began_at = time.monotonic()
    with psycopg.connect(database.uri, autocommit=True) as connection:
        while time.monotonic() - began_at < _DRAIN_WITHIN_S:
            row = connection.execute("select count(*) from tallybook.outbox").fetchone()
            if row == (0,):
                return time.monotonic() - began_at
            time.sleep(0.05)
        left = connection.execute(
            "select object_type, attempts, last_error, count(*) from tallybook.outbox group by 1, 2, 3"
        ).fetchall()
    raise RuntimeError(f"still waiting for HubSpot: {left}")


@contextmanager
def _without_limits(hubspot: Server) -> Iterator[None]:
    ask(hubspot, "POST", "/_simulator/settings", {"latency_ms": 0, "limit_calls": 10_000_000})
    yield


def _booking_lags(database: Database, hubspot: Server) -> list[float]:
    """From the commit of each booking to its creation there, in the order they were made."""
    there: dict[str, datetime] = {}
    after = ""
    while True:
        path = f"/crm/v3/objects/{BOOKINGS_OBJECT}?limit=100&properties=tallybook_id{after}"
        page = _call(hubspot, "GET", path)
        for record in page["results"]:
            there[record["properties"]["tallybook_id"]] = datetime.fromisoformat(record["createdAt"])
        if "paging" not in page:
            break
        after = f"&after={page['paging']['next']['after']}"
    return _lags(database, "select id::text, created_at from tallybook.bookings order by created_at", there)


def _balance_lags(database: Database, hubspot: Server) -> list[float]:
    """From the commit of each spend to the moment HubSpot showed the balance after it."""
    there: dict[str, datetime] = {}
    after = ""
    while True:
        path = f"/crm/v3/objects/contacts?limit=50&propertiesWithHistory=sj_credits{after}"
        page = _call(hubspot, "GET", path)
        for record in page["results"]:
            newest = record["propertiesWithHistory"]["sj_credits"][0]
            there[record["id"]] = datetime.fromisoformat(newest["timestamp"])
        if "paging" not in page:
            break
        after = f"&after={page['paging']['next']['after']}"
    spends = (
        "select c.hubspot_id, e.created_at from tallybook.credit_entries e"
        " join tallybook.contacts c on c.id = e.contact_id where e.reason = 'booking' order by e.created_at"
    )
    return _lags(database, spends, there)


def _lags(database: Database, query: str, there: dict[str, datetime]) -> list[float]:
    with psycopg.connect(database.uri) as connection:
        rows = connection.execute(query).fetchall()
    return [(there[key] - at).total_seconds() for key, at in rows if key in there]


def _call(hubspot: Server, method: str, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", hubspot.port, timeout=60)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {SIMULATOR_TOKEN}"})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
