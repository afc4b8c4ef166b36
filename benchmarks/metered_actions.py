"""Checks, holds and charges over HTTP against bare handlers; a long ledger; contention on one contact."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

import psycopg

from harness.cluster import API_KEY, Database, cluster
from harness.load import Load, post, send
from harness.report import Options, Report
from harness.rounds import cpu_ms_each, interleaved, median_ms, median_rate, rate_ratio
from harness.servers import Server, bare, is_proved, serve

TITLE = "metered actions: check, hold and charge over HTTP, a long ledger, contention on one contact"
SECONDS = 60
CONTACTS = 10_000
ENTRIES = 100_000
CONNECTIONS = 16
ROUND_S = 0.8
ROUNDS_EACH = 6
BARS = {"check": 0.65, "hold": 0.8, "charge": 0.8}
HANDLERS = {"check": "check_action", "hold": "hold", "charge": "charge"}
OURS, BARE = "with everything on", "bare: same server, pool and SQL function"
CLIENTS = 100
ATTEMPTS, ATTEMPTS_FULL = 20_000, 1_000_000
PAID_UPLOADS = 1_000


def run(options: Options) -> Report:
    """Each action in rounds against both servers in turn; then the ledger; then the contention."""
    report = Report("./dev bench metered" + (" --full" if options.full else ""), TITLE)
    with cluster() as postgres:
        database = postgres.database()
        database.run("fill_metered", contacts=CONTACTS, entries=ENTRIES)
        database.vacuum()
        with ExitStack() as held:
            ours = held.enter_context(serve(database))
            for action, bar in BARS.items():
                other = held.enter_context(bare(database, f"harness.bare_psycopg:{HANDLERS[action]}"))
                _compare(report, action, bar, ours, other, rounds=ROUNDS_EACH * options.rounds)
            _ledger(report, ours, rounds=ROUNDS_EACH * options.rounds)
        _contention(report, database, full=options.full)
        is_proved(database)
    report.note("tallybook verify: clean")
    if not options.full:
        report.note(f"A million attempts at one contact: {report.command} --full")
    return report


def _compare(report: Report, action: str, bar: float, ours: Server, other: Server, *, rounds: int) -> None:
    path = {"check": "/api/credits/check", "hold": "/api/credits/holds", "charge": "/api/credits/charge"}[
        action
    ]
    body = {"action": "audio_upload"} | ({"expires_in_s": 86_400} if action == "hold" else {})
    requests = [post(path, {"contact": f"email:m{n}@example.com", **body}) for n in range(CONTACTS)]
    servers = {OURS: ours, BARE: other}

    def measure(name: str) -> Load:
        cpu = {"server": servers[name].cpu_s}
        load = send(servers[name].port, requests, connections=CONNECTIONS, seconds=ROUND_S, cpu=cpu)
        load.expect("200" if action == "check" else "201")
        return load

    for name in servers:
        measure(name)  # Fills caches and plans.
    found = interleaved(list(servers), measure, rounds=rounds)
    figure = f"{median_rate(found[OURS]):,.0f}/s of {median_rate(found[BARE]):,.0f}/s"
    report.demand_ratio(
        f"{action}, of {BARE}", figure, ratio=rate_ratio(found[OURS], found[BARE]), at_least=bar
    )
    report.note(
        f"{action}: Python CPU {cpu_ms_each(found[OURS], 'server'):.3f} ms each, bare "
        f"{cpu_ms_each(found[BARE], 'server'):.3f} ms; p50 {median_ms(found[OURS], 0.5):.1f} ms"
    )


def _ledger(report: Report, server: Server, *, rounds: int) -> None:
    """The authoritative balance of a contact with ten entries and of one with a hundred thousand."""

    def measure(name: str) -> Load:
        text = (
            f"GET /api/contacts/email:{name}@example.com/credits HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {API_KEY}\r\n\r\n"
        )
        load = send(server.port, [text.encode()], connections=4, seconds=ROUND_S)
        load.expect("200")
        return load

    for name in ("short", "long"):
        measure(name)
    found = interleaved(["short", "long"], measure, rounds=rounds)
    ratio = median(
        one.percentile_ms(0.5) / other.percentile_ms(0.5)
        for one, other in zip(found["long"], found["short"], strict=True)
    )
    figure = f"{median_ms(found['long'], 0.5):.2f} ms of {median_ms(found['short'], 0.5):.2f} ms"
    report.demand_ratio(f"balance, p50 at {ENTRIES:,} of 10 entries", figure, ratio=ratio, at_most=1.3)


def _contention(report: Report, database: Database, *, full: bool) -> None:
    """Everybody charges one contact who can pay a thousand times: exactly so many get through."""
    attempts = ATTEMPTS_FULL if full else ATTEMPTS
    ran = database.pgbench("charge_one", clients=CLIENTS, variables={}, each=attempts // CLIENTS)
    with psycopg.connect(database.uri) as connection:
        row = connection.execute(
            "select b.balance, b.held, count(e.id), coalesce(sum(e.delta), 0)"
            " from tallybook.credit_balances b join public.payer p on p.id = b.contact_id"
            " left join tallybook.credit_entries e on e.contact_id = p.id and e.reason = 'charge'"
            " group by 1, 2"
        ).fetchone()
        (timeouts,) = connection.execute("select last_value from public.lock_timeouts").fetchone() or (0,)
    if row != (1, 0, PAID_UPLOADS, -2 * PAID_UPLOADS):
        raise RuntimeError(f"{attempts:,} attempts left (balance, held, charges, sum) {row}")
    report.show(f"{CLIENTS} clients, one contact, {ran.transactions:,} attempts", f"{ran.per_s:,.0f}/s")
    report.note(f"Of these {timeouts:,} waited more than two seconds for the contact: 503 LOCK_TIMEOUT")
    report.demand("charges beyond what the contact could pay", row[2] - PAID_UPLOADS, "", at_most=0)
