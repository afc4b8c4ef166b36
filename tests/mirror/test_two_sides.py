"""Both sides edit while everything goes wrong: all edits arrive on both sides; broken merges are caught."""

from itertools import count

import pytest

from e2e.service import Simulator
from proof.breaking import broken_merge
from proof.play import Plan, play
from proof.quiet import quiet_stage
from proof.settle import NeverSettled
from proof.stage import Stage

_numbers = count()


async def test_random_edits_on_both_sides_under_faults_and_kills_all_arrive_once(postgres_server, tmp_path):
    """Some hundred edits, a good part of them between our reading and our writing; no number is wrong."""
    plan = Plan(
        edits=300,
        contacts=12,
        sessions=8,
        seed=7,
        per_s=20,
        aim=0.7,
        latency_ms=200,
        search_lag_s=1.0,
        fault_every_s=2.0,
        kill_worker_every_s=5.0,
        kill_server_every_s=8.0,
        lose_leases_every_s=5.0,
        settle_s=120.0,
    )
    name = await postgres_server.create_database()
    simulator = Simulator(tmp_path, "--contacts", str(plan.contacts))
    stage = None
    try:
        await simulator.ready()
        stage = Stage(tmp_path, postgres_server.uri(name), simulator)
        result = await play(stage, plan, say=print)
        await stage.command("verify")
        await stage.command("verify", "--mirror")
    finally:
        if stage is not None:
            await stage.close()
        await simulator.close()
        await postgres_server.drop_database(name)
    print(f"{result.truth.edits} edits, race rate {result.truth.race_rate():.0%}, {dict(result.trouble)}")
    assert not result.audit.wrong, "\n".join(result.audit.wrong)
    assert result.truth.race_rate() > 0.1
    # Which of them the seed hits depends on how fast the machine is.
    assert result.trouble["worker killed"] + result.trouble["server killed"] > 0


# -- single races, and what they are worth: merges that are broken on purpose fail them -----------------


@pytest.fixture(scope="module")
async def slow(postgres_server, tmp_path_factory):
    """One worker, and a HubSpot where what it is told takes effect 400 ms later."""
    async with quiet_stage(postgres_server, tmp_path_factory.mktemp("slow"), workers=1) as stage:
        await stage.portal.door("settings", latency_ms=800)
        yield stage


async def race(stage, typed, *, within_s=60.0):
    """Ten credits on both sides, two are granted; `typed` comes after the claim and before the write.

    Gives what both sides end with, None when they never agree.
    """
    contact_id, hubspot_id = await stage.contact(next(_numbers))
    shown = await stage.shown(hubspot_id, "sj_credits")
    await stage.portal.type("contact", hubspot_id, {"sj_credits": "10"}, expect={"sj_credits": shown})
    await stage.settle()
    await stage.grant(contact_id, "sj_credits", 2)
    await stage.until("select 1 from tallybook.contacts where id = %s and crm_unread", contact_id)
    await stage.portal.type("contact", hubspot_id, {"sj_credits": typed}, expect={"sj_credits": "10"})
    await stage.until_there("contact", hubspot_id, "sj_credits", "12")
    try:
        await stage.settle(within_s)
    except NeverSettled:
        return None
    balance = await stage.balance(contact_id, "sj_credits")
    assert await stage.shown(hubspot_id, "sj_credits") == str(balance)
    return balance


async def test_an_edit_between_our_reading_and_our_writing_is_kept(slow):
    """10 + 2 granted + 3 typed, although our 12 was written over the 13."""
    assert await race(slow, "13") == 15


async def test_a_person_who_types_the_very_number_we_push_has_added_it(slow):
    """10 + 2 granted + 2 typed: two twelves, and only one of them is ours."""
    assert await race(slow, "12") == 14


async def test_control_with_the_history_off_an_edit_is_lost(slow):
    """Negative control: the plain difference takes each of our own writes for an edit, and so on and on."""
    async with broken_merge(slow, "history"):
        assert await race(slow, "13", within_s=15) != 15


async def test_control_with_own_writes_known_by_their_value_an_edit_is_lost(slow):
    """Negative control: whoever types our number is taken for us."""
    async with broken_merge(slow, "value"):
        assert await race(slow, "12") != 14


# -- a portal whose histories give one request several times -------------------------------------------------


@pytest.fixture(scope="module")
async def skewed(postgres_server, tmp_path_factory):
    """The slow one, with stamp and number of one request 1.5 s apart. Nobody knows that yet."""
    async with quiet_stage(postgres_server, tmp_path_factory.mktemp("skewed"), workers=1) as stage:
        await stage.portal.door("settings", latency_ms=800, stamp_skew_ms=1500)
        yield stage
        await stage.command("verify")
        await stage.command("verify", "--mirror", "--wait", "60")


async def invented(stage):
    """How many of our own writes the ledgers have as edits."""
    ((found,),) = await stage.run(
        "select count(*) from tallybook.credit_entries"
        " where reason = 'crm_edit' and actor = 'hubspot:integration'"
    )
    return found


async def write_once(stage):
    """Two credits granted and pushed, until they were read back as an edit; gives both ids of the contact."""
    contact_id, hubspot_id = await stage.contact(next(_numbers))
    await stage.grant(contact_id, "sj_credits", 2)
    await stage.until(
        "select 1 from tallybook.credit_entries where contact_id = %s and reason = 'crm_edit'", contact_id
    )
    return contact_id, hubspot_id


async def test_doctor_ends_what_times_that_differ_do_while_the_worker_runs(skewed):
    """Negative control: until it looks, each own write is an edit that is pushed again. Then none is."""
    await skewed.run(
        "update tallybook.sync_state set value = value - 'stamps_apart_ms' where name = 'portal'"
    )
    contact_id, hubspot_id = await write_once(skewed)
    assert await invented(skewed) > 0
    said = await skewed.command("doctor", accept=(0, 1))
    assert "own writes are recognised within 2 s on this portal" in said
    assert "recognised within 2 s" in await skewed.command("sync", "status")
    await skewed.settle()
    until_now = await invented(skewed)
    await skewed.grant(contact_id, "sj_credits", 2)
    balance = await skewed.balance(contact_id, "sj_credits")
    await skewed.settle()
    assert await skewed.balance(contact_id, "sj_credits") == balance
    assert await skewed.shown(hubspot_id, "sj_credits") == str(balance)
    assert await invented(skewed) == until_now


@pytest.mark.parametrize(("typed", "balance"), [("13", 15), ("12", 14)])
async def test_edits_are_kept_and_own_writes_known_where_times_differ(skewed, typed, balance):
    """Typed between our reading and our writing, the very number we push, too: it counts once."""
    if not await skewed.run("select 1 from tallybook.sync_state where value ? 'stamps_apart_ms'"):
        await write_once(skewed)
        await skewed.command("doctor", accept=(0, 1))
        await skewed.settle()
    until_now = await invented(skewed)
    assert await race(skewed, typed) == balance
    assert await invented(skewed) == until_now
