"""Does a large database answer more slowly? The same calls on ten thousand contacts and on a million."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median

from harness.cluster import cluster
from harness.load import Load, booking_request, check_request, send
from harness.report import Options, Report
from harness.servers import Server, is_proved, serve

TITLE = "growth: p50 of a check and a booking on a large database against ten thousand contacts"
SECONDS = 45
SMALL, LARGER, MILLION = 10_000, 100_000, 1_000_000
BAR = 1.3
CONNECTIONS = 4
CHECKS_S = 2.5
BOOKINGS = 600

Requests = Callable[[int, int], Sequence[bytes]]


def run(options: Options) -> Report:
    """Two databases on one PostgreSQL, one server each; rounds in turn."""
    large = MILLION if options.full else LARGER
    report = Report("./dev bench growth" + (" --full" if options.full else ""), TITLE)
    with cluster() as postgres, ExitStack() as held:
        servers: dict[int, Server] = {}
        databases, sessions = {}, {}
        for contacts in (SMALL, large):
            began_at = time.monotonic()
            databases[contacts] = database = postgres.database(f"contacts_{contacts}")
            database.fill(contacts)
            report.note(
                f"{contacts:,} contacts and {5 * contacts:,} entries filled in "
                f"{time.monotonic() - began_at:.0f} s"
            )
            sessions[contacts] = database.session_ids()
            servers[contacts] = held.enter_context(serve(database))
        students = {contacts: random.Random(2).sample(range(contacts), SMALL) for contacts in servers}

        def checks(contacts: int, _number: int) -> Sequence[bytes]:
            return [check_request(student) for student in students[contacts]]

        def bookings(contacts: int, number: int) -> Sequence[bytes]:
            fresh = students[contacts][number * BOOKINGS : (number + 1) * BOOKINGS]
            return [booking_request(student, sessions[contacts][student % 200]) for student in fresh]

        rounds = options.rounds + 1
        found_checks = _rounds(servers, checks, rounds, status="200", seconds=CHECKS_S)
        found_bookings = _rounds(servers, bookings, rounds, status="201")
        for database in databases.values():
            is_proved(database)
    for name, found in (("validate-credits", found_checks), ("bookings/create", found_bookings)):
        p50 = {
            contacts: median(load.percentile_ms(0.5) for load in loads) for contacts, loads in found.items()
        }
        ratio = median(
            big.percentile_ms(0.5) / small.percentile_ms(0.5)
            for big, small in zip(found[large], found[SMALL], strict=True)
        )
        figure = f"{p50[large]:.2f} ms of {p50[SMALL]:.2f} ms"
        report.demand_ratio(f"{name}, p50 at {large:,} of {SMALL:,}", figure, ratio=ratio, at_most=BAR)
    if not options.full:
        report.note(f"The contract's size is {MILLION:,} contacts: ./dev bench growth --full")
    report.note(f"{CONNECTIONS} connections, students at random. tallybook verify: clean")
    return report


def _rounds(
    servers: dict[int, Server], requests: Requests, rounds: int, *, status: str, seconds: float | None = None
) -> dict[int, list[Load]]:
    found: dict[int, list[Load]] = {contacts: [] for contacts in servers}
    for number in range(rounds):
        for contacts, server in servers.items():
            load = send(server.port, requests(contacts, number), connections=CONNECTIONS, seconds=seconds)
            load.expect(status)
            if number:  # The first round fills caches and plans.
                found[contacts].append(load)
    return found
