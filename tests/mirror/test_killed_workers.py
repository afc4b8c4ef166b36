"""kill -9 of the worker at each step of push and pull: what either side decided arrives, and arrives once."""

from contextlib import asynccontextmanager
from itertools import count

import psycopg
import pytest

from proof.quiet import quiet_stage

HANGS_MS = 60_000
_numbers = count()
_SLOTS = "select pg_advisory_xact_lock(hashtextextended('crm_call_slots', 3))"
_SOMEBODY_WAITS = (
    "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
)
_IS_CLAIMED = (
    "select 1 from tallybook.outbox where object_type = %s and object_id = %s and leased_until > now()"
)


@pytest.fixture(scope="module")
async def stage(postgres_server, tmp_path_factory):
    """A server, a portal that sends webhooks, a database; each test has a worker until it kills it."""
    async with quiet_stage(postgres_server, tmp_path_factory.mktemp("stage")) as stage:
        yield stage
        await stage.command("verify")
        await stage.command("verify", "--mirror")


@pytest.fixture
async def who(stage):
    """A contact with ten credits on both sides, and a running worker with nothing to do."""
    contact_id, hubspot_id = await stage.contact(next(_numbers))
    shown = await stage.shown(hubspot_id, "sj_credits")
    stage.start_worker()
    await stage.portal.type("contact", hubspot_id, {"sj_credits": "10"}, expect={"sj_credits": shown})
    await stage.settle()
    assert await stage.balance(contact_id, "sj_credits") == 10
    yield contact_id, hubspot_id
    stage.kill_workers()
    await stage.portal.mend()


@asynccontextmanager
async def holding(stage, statement, *values):
    """Another transaction holds what the statement locks."""
    async with await psycopg.AsyncConnection.connect(stage.uri) as other:
        await other.execute(statement, values)
        yield
        await other.rollback()


def contact_row(contact_id):
    return "select from tallybook.contacts where id = %s for update", contact_id


# -- the steps of a push: each brings the worker there with two credits granted, and kills it ----------


async def claimed_but_not_sent(stage, contact_id, hubspot_id):
    async with holding(stage, _SLOTS):
        await stage.grant(contact_id, "sj_credits", 2)
        await stage.until(_IS_CLAIMED, "contact", contact_id)
        await stage.until(_SOMEBODY_WAITS)
        stage.kill_workers()
    assert await stage.shown(hubspot_id, "sj_credits") == "10"


async def sent_but_never_applied(stage, contact_id, hubspot_id):
    await stage.portal.door("faults", path="contacts/batch/update", status=503, delay_ms=HANGS_MS)
    await stage.grant(contact_id, "sj_credits", 2)
    await stage.until_fault_is_taken()
    stage.kill_workers()
    assert await stage.shown(hubspot_id, "sj_credits") == "10"


async def applied_after_the_death(stage, contact_id, hubspot_id):
    await stage.portal.door("faults", path="contacts/batch/update", cut=True, late_apply_ms=2_000)
    await stage.grant(contact_id, "sj_credits", 2)
    await stage.until_fault_is_taken()
    stage.kill_workers()
    assert await stage.shown(hubspot_id, "sj_credits") == "10"


async def applied_but_not_answered(stage, contact_id, hubspot_id):
    await stage.portal.door("faults", path="contacts/batch/update", apply_first=True, delay_ms=HANGS_MS)
    await stage.grant(contact_id, "sj_credits", 2)
    await stage.until_there("contact", hubspot_id, "sj_credits", "12")
    stage.kill_workers()


async def answered_but_not_read_back(stage, contact_id, hubspot_id):
    await stage.portal.door("faults", path="contacts/batch/read", delay_ms=HANGS_MS, times=20)
    await stage.grant(contact_id, "sj_credits", 2)
    await stage.until_there("contact", hubspot_id, "sj_credits", "12")
    await stage.until("select 1 from tallybook.contacts where id = %s and crm_unread", contact_id)
    stage.kill_workers()
    await stage.portal.mend()


async def read_back_but_not_absorbed(stage, contact_id, hubspot_id):
    await stage.portal.door("faults", path="contacts/batch/read", delay_ms=700, times=20)
    await stage.grant(contact_id, "sj_credits", 2)
    await stage.until_there("contact", hubspot_id, "sj_credits", "12")
    async with holding(stage, *contact_row(contact_id)):
        await stage.until(_SOMEBODY_WAITS)
        stage.kill_workers()
    await stage.portal.mend()


async def absorbed_but_not_confirmed(stage, contact_id, hubspot_id):
    lock = "select from tallybook.outbox where object_type = 'contact' and object_id = %s for update"
    await stage.portal.door("faults", path="contacts/batch/read", delay_ms=700, times=20)
    await stage.grant(contact_id, "sj_credits", 2)
    await stage.until_there("contact", hubspot_id, "sj_credits", "12")
    async with holding(stage, lock, contact_id):
        await stage.until(
            "select 1 from tallybook.credit_balances where contact_id = %s and crm_base = 12", contact_id
        )
        await stage.until(_SOMEBODY_WAITS)
        stage.kill_workers()
    await stage.portal.mend()


PUSH = (
    claimed_but_not_sent,
    sent_but_never_applied,
    applied_after_the_death,
    applied_but_not_answered,
    answered_but_not_read_back,
    read_back_but_not_absorbed,
    absorbed_but_not_confirmed,
)


async def type_more(stage, hubspot_id, number):
    """A person adds to what HubSpot shows them."""
    shown = await stage.shown(hubspot_id, "sj_credits")
    more = str(int(shown) + number)
    await stage.portal.type("contact", hubspot_id, {"sj_credits": more}, expect={"sj_credits": shown})


async def expect_both(stage, who, number, *entries):
    """Both sides show the number, and these entries, each once, are the newest of the ledger."""
    contact_id, hubspot_id = who
    await stage.settle()
    found = await stage.entries(contact_id, "sj_credits")
    assert (await stage.balance(contact_id, "sj_credits"), await stage.shown(hubspot_id, "sj_credits")) == (
        number,
        str(number),
    ), found
    assert sorted(delta for delta, _ in found[-len(entries) :]) == sorted(entries)


@pytest.mark.parametrize("step", PUSH, ids=lambda step: step.__name__)
async def test_a_worker_killed_while_it_pushes_loses_and_invents_nothing(stage, who, step):
    """Two granted here, three typed there before anybody else comes by: fifteen on both sides, once each."""
    await step(stage, *who)

    await type_more(stage, who[1], 3)
    await stage.end_leases()
    stage.start_worker()

    await expect_both(stage, who, 15, 2, 3)


@pytest.mark.parametrize(
    "step", [claimed_but_not_sent, applied_after_the_death], ids=lambda step: step.__name__
)
async def test_the_very_number_a_killed_worker_was_sending_counts_when_a_person_types_it(stage, who, step):
    """Whoever knew own writes by their values would take the person's twelve for its own."""
    await step(stage, *who)

    await type_more(stage, who[1], 2)
    await stage.end_leases()
    stage.start_worker()

    await expect_both(stage, who, 14, 2, 2)


# -- the steps of a pull: three typed there, two granted here after the kill -----------------------------


async def hinted_but_not_read(stage, contact_id, hubspot_id):
    await stage.portal.door("faults", path="contacts/batch/read", delay_ms=HANGS_MS, times=20)
    await type_more(stage, hubspot_id, 3)
    await stage.until(
        "select 1 from tallybook.inbox where hubspot_id = %s and leased_until > now()", hubspot_id
    )
    stage.kill_workers()
    await stage.portal.mend()


async def read_but_not_absorbed(stage, contact_id, hubspot_id):
    async with holding(stage, *contact_row(contact_id)):
        await type_more(stage, hubspot_id, 3)
        await stage.until(_SOMEBODY_WAITS)
        stage.kill_workers()


async def absorbed_but_still_hinted(stage, contact_id, hubspot_id):
    lock = "lock table tallybook.inbox in share mode"
    await stage.portal.door("faults", path="contacts/batch/read", delay_ms=1_000, times=20)
    await type_more(stage, hubspot_id, 3)
    await stage.until(
        "select 1 from tallybook.inbox where hubspot_id = %s and leased_until > now()", hubspot_id
    )
    async with holding(stage, lock):
        await stage.until(
            "select 1 from tallybook.credit_balances where contact_id = %s and crm_base = 13", contact_id
        )
        await stage.until(_SOMEBODY_WAITS)
        stage.kill_workers()
    await stage.portal.mend()


@pytest.mark.parametrize(
    "step",
    [hinted_but_not_read, read_but_not_absorbed, absorbed_but_still_hinted],
    ids=lambda step: step.__name__,
)
async def test_a_worker_killed_while_it_pulls_loses_and_invents_nothing(stage, who, step):
    """What was typed is taken in once, by whoever comes next."""
    await step(stage, *who)

    await stage.grant(who[0], "sj_credits", 2)
    await stage.end_leases()
    stage.start_worker()

    await expect_both(stage, who, 15, 2, 3)
