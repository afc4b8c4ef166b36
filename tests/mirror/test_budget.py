"""The call budget: pull always gets its call, the last of the day is for people who wait, crashes count."""

import asyncio
import os
import signal
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress

import pytest

from support.server import TestServer
from tallybook.domain.call_limits import CallLimit
from tallybook.domain.errors import CrmBusy, DatabaseUnavailable
from tallybook.hubspot.budget import SEARCH_SHARES, SHARES, CallKind
from tallybook.postgres.call_budget import PostgresCallBudget
from tallybook.postgres.embedded import EmbeddedServer
from tallybook.postgres.pool import Database


def budget_of(db, *limits, searches=5, timeout_s=15.0):
    return PostgresCallBudget(
        db,
        limits=[CallLimit(calls, window_s) for calls, window_s in limits],
        search_limits=[CallLimit(searches, 1.0)],
        shares={kind.value: share for kind, share in SHARES.items()},
        search_shares={kind.value: share for kind, share in SEARCH_SHARES.items()},
        call_timeout_s=timeout_s,
    )


async def call_on(budget, kind, until, counts, *, search=False):
    """Calls without a pause until it is `until`."""
    while time.monotonic() < until:
        with suppress(CrmBusy):
            async with budget.slot(kind, search=search, wait_s=until - time.monotonic()):
                counts[kind] += 1


async def test_a_new_database_calls_at_once(db):
    """Only after a crash nobody knows what was called before."""
    budget = budget_of(db, (10, 10.0))
    async with asyncio.timeout(2), budget.slot(CallKind.MISS, wait_s=1):
        pass


async def test_pull_gets_a_call_a_second_however_busy_the_others_are(db):
    """Misses, imports and pushes want all there is for three seconds; pull is called two times at least."""
    budget = budget_of(db, (10, 1.0))
    counts = Counter()
    until = time.monotonic() + 3
    greedy = [CallKind.MISS] * 4 + [CallKind.IMPORT] * 4 + [CallKind.PUSH] * 4
    await asyncio.gather(*(call_on(budget, kind, until, counts) for kind in (*greedy, CallKind.PULL)))
    print(dict(counts))
    assert counts[CallKind.PULL] >= 2
    # And it is owed no more than that: the others go on.
    assert counts[CallKind.MISS] + counts[CallKind.IMPORT] + counts[CallKind.PUSH] >= 15


async def test_without_what_pull_is_owed_it_starves(db, owner):
    """The control: with the wish unheard, the same crowd leaves pull nothing."""
    await owner.execute(
        "create function tallybook.deaf() returns trigger language plpgsql as"
        " $$ begin new.pull_wanted_at := null; return new; end $$"
    )
    await owner.execute(
        "create trigger deaf before update on tallybook.crm_call_state"
        " for each row execute function tallybook.deaf()"
    )
    budget = budget_of(db, (10, 1.0))
    counts = Counter()
    until = time.monotonic() + 3
    await asyncio.gather(
        *(call_on(budget, CallKind.MISS, until, counts) for _ in range(40)),
        call_on(budget, CallKind.PULL, until, counts),
    )
    print(dict(counts))
    assert counts[CallKind.PULL] <= 1


async def test_no_window_holds_more_than_the_limit_while_pull_takes_what_it_is_owed(db, owner):
    """Ten in any second, counted from sending until a second after the answer."""
    budget = budget_of(db, (10, 1.0))
    peak = in_use = 0

    async def call(kind, until):
        nonlocal peak, in_use
        while time.monotonic() < until:
            with suppress(CrmBusy):
                async with budget.slot(kind, wait_s=until - time.monotonic()):
                    in_use += 1
                    peak = max(peak, in_use)
                # What the budget counts as used: one second more.
                asyncio.get_running_loop().call_later(0.95, release)

    def release():
        nonlocal in_use
        in_use -= 1

    until = time.monotonic() + 3
    kinds = [CallKind.MISS] * 6 + [CallKind.PULL] * 6
    await asyncio.gather(*(call(kind, until) for kind in kinds))
    await asyncio.sleep(1)
    assert peak <= 10


async def test_polling_leaves_half_of_the_searches_to_others(db):
    """Two of five a second."""
    budget = budget_of(db, (1000, 1.0), searches=5)
    counts = Counter()
    until = time.monotonic() + 3
    await asyncio.gather(*(call_on(budget, CallKind.PULL, until, counts, search=True) for _ in range(6)))
    assert 4 <= counts[CallKind.PULL] <= 8


async def said(budget, *, limit, remaining):
    async with budget.slot(CallKind.MISS, wait_s=1) as slot:
        slot.daily_limit, slot.daily_remaining = limit, remaining
    await asyncio.gather(*budget._freeing)


async def test_the_last_tenth_of_the_day_is_for_misses(db):
    """Below it everything else is told at once to wait; misses are not, and a new day opens all again."""
    budget = budget_of(db, (1000, 10.0))
    await said(budget, limit=1000, remaining=100)
    for kind in CallKind:
        async with budget.slot(kind, wait_s=1):
            pass
    await said(budget, limit=1000, remaining=99)
    for kind in (CallKind.IMPORT, CallKind.PUSH, CallKind.PULL, CallKind.RECONCILE):
        with pytest.raises(CrmBusy) as caught:
            async with asyncio.timeout(1), budget.slot(kind, wait_s=60):
                pass
        assert caught.value.details == {"policy": "DAILY"}
        assert 1 <= caught.value.retry_after_s <= 900
    for kind in (CallKind.MISS, CallKind.UNSIGNED_MISS):
        async with budget.slot(kind, wait_s=1):
            pass
    await said(budget, limit=1000, remaining=999)
    async with budget.slot(CallKind.PUSH, wait_s=1):
        pass


@pytest.mark.parametrize(
    ("zone", "utc_hour"),
    [
        ("America/Toronto", {4, 5}),
        ("US/Eastern", {4, 5}),
        ("Asia/Tokyo", {15}),
        ("No/Where", {0}),
        (None, {0}),
    ],
)
async def test_the_reserve_ends_at_the_portals_midnight(db, owner, zone, utc_hour):
    """In the zone the account names; one this server does not know counts as UTC."""
    if zone is not None:
        await owner.execute(
            "insert into tallybook.sync_state (name, value)"
            " values ('portal', jsonb_build_object('time_zone', %s::text))",
            (zone,),
        )
    budget = budget_of(db, (1000, 10.0))
    await said(budget, limit=1000, remaining=1)
    cursor = await owner.execute(
        "select daily_ends_at at time zone 'UTC', daily_ends_at - clock_timestamp()"
        " from tallybook.crm_call_state"
    )
    ends_at, left = await cursor.fetchone()
    assert ends_at.hour in utc_hour
    assert 0 < left.total_seconds() <= 90_000
    await owner.execute("update tallybook.crm_call_state set daily_ends_at = clock_timestamp()")
    async with budget.slot(CallKind.PUSH, wait_s=1):
        pass


async def test_what_hubspot_says_of_the_day_reaches_the_budget(db, portal):
    """The simulator's headers: at nine tenths of its day, imports stop and misses go on."""
    await portal.post("settings", limit_daily=20)
    budget = budget_of(db, (1000, 10.0))
    used = (await portal.stats())["total"]
    async with portal.client(budget=budget) as client:

        async def read(kind):
            await client.account_details(kind=kind, deadline_s=2)
            await asyncio.gather(*budget._freeing)

        for _ in range(max(0, 18 - used)):
            await read(CallKind.IMPORT)
        await read(CallKind.IMPORT)
        with pytest.raises(CrmBusy):
            await read(CallKind.IMPORT)
        await read(CallKind.MISS)
    assert (await portal.stats())["rejected_429"] == 0


async def test_the_simulators_daily_refusal_stops_all_but_misses(db, portal):
    """A 429 of policy DAILY is believed also where nothing was said before."""
    await portal.post("settings", limit_daily=0)
    budget = budget_of(db, (1000, 10.0))
    async with portal.client(budget=budget) as client:
        with pytest.raises(CrmBusy):
            await client.account_details(kind=CallKind.PULL, deadline_s=1)
        await asyncio.gather(*budget._freeing)
        before = (await portal.stats())["rejected_429"]
        with pytest.raises(CrmBusy):
            await client.account_details(kind=CallKind.PUSH, deadline_s=1)
        assert (await portal.stats())["rejected_429"] == before


async def test_after_a_crash_of_the_database_everybody_waits_for_one_window(tmp_path_factory):
    """The slots are gone with it: for as long as calls from before may count, none is made."""
    directory = tmp_path_factory.mktemp("crash")
    directory.chmod(0o711)
    with EmbeddedServer.start(directory) as embedded:
        server = TestServer(embedded)
        await server.prepare()
        name = await server.create_database()
        async with opened(server.uri(name)) as db:
            await fill(budget_of(db, (10, 2.0)))
            os.kill(embedded.pid, signal.SIGKILL)
    with EmbeddedServer.start(directory) as embedded:
        async with opened(TestServer(embedded).uri(name)) as db:
            waited_s = await until_called(budget_of(db, (10, 2.0)))
    assert 1.9 <= waited_s < 10


async def test_control_without_a_crash_the_slots_are_remembered(postgres_server, database_uri):
    """Another process finds them, and waits for as long as they say and no longer."""
    async with opened(database_uri) as db:
        await fill(budget_of(db, (10, 2.0)))
        await asyncio.sleep(1.5)
        assert await until_called(budget_of(db, (10, 2.0))) < 1


@asynccontextmanager
async def opened(uri):
    db = Database(uri, size=2)
    try:
        yield db
    finally:
        await db.close()


async def fill(budget):
    for _ in range(10):
        async with budget.slot(CallKind.MISS, wait_s=1):
            pass
    await asyncio.gather(*budget._freeing)


async def until_called(budget):
    """Seconds until a miss got its slot."""
    started = time.monotonic()
    while True:
        with suppress(CrmBusy, DatabaseUnavailable):
            async with budget.slot(CallKind.MISS, wait_s=0.1):
                break
    waited_s = time.monotonic() - started
    await asyncio.gather(*budget._freeing)
    return waited_s
