"""What doctor finds about a portal before anything goes wrong there."""

import dataclasses
import json
from datetime import timedelta
from uuid import uuid4

import pytest

from support.commands import SECRET_KEY, CommandLine
from support.factories import CATALOG, balances, grant
from support.push_world import CONTACT, TOKEN
from tallybook.domain.portal_marker import PortalMarker
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.histories import ONE_REQUEST, SAME_TIME
from tallybook.jobs.push_changes import push_until
from tallybook.usecases.check_mirror import check_binding, check_stamps, check_write_access
from tallybook.usecases.guard_mirror import demand_same_portal, raise_epoch
from tallybook.usecases.learn_stamp_times import own_within, stamps_apart
from tallybook.usecases.rebind_mirror import rebind_mirror
from tallybook.usecases.show_sync_status import show_sync_status


def said(findings):
    return [(each.level.value, each.subject) for each in findings]


async def written(world):
    """A student whose balance we wrote to HubSpot."""
    contact = await world.student(credits={"sj_credits": 3})
    await grant(world.db, contact, "sj_credits", 2)
    await push_until(world.mirror, max_s=20)
    assert await world.outbox() == {}
    return contact


async def test_a_token_that_may_write_is_found_out_without_writing(world):
    """No record is touched: the calls carry nothing."""
    contact = await written(world)
    before = await world.record(CONTACT, contact.hubspot_id)
    assert said(await check_write_access(world.mirror.client)) == [("ok", "HubSpot scopes")]
    assert await world.record(CONTACT, contact.hubspot_id) == before


@pytest.mark.parametrize(
    "scope", ["crm.objects.contacts.write", "crm.objects.custom.write", "crm.schemas.contacts.write"]
)
async def test_a_scope_that_is_missing_is_named(world, scope):
    """Before the first push fails for it."""
    await world.portal.post("settings", missing_scopes=[scope])
    findings = await check_write_access(world.mirror.client)
    await world.portal.post("settings", missing_scopes=[])
    assert {each.level.value for each in findings} == {"fail"}
    assert all(scope in each.found for each in findings)


async def test_numbers_written_by_us_are_found_stamped(world):
    """What people typed is nobody's business here."""
    assert said(await check_stamps(world.mirror.client, CATALOG)) == [("ok", "stamps")]
    contact = await written(world)
    await world.edit(CONTACT, contact.hubspot_id, sj_credits="9")
    (found,) = await check_stamps(world.mirror.client, CATALOG)
    assert (found.level.value, "all 1 numbers" in found.found) == ("ok", True)


async def test_another_program_with_our_token_is_noticed(world):
    """It writes a balance without a stamp, from the same source."""
    contact = await written(world)
    answer = await world._http.patch(
        f"/crm/objects/2026-09/contacts/{contact.hubspot_id}",
        json={"properties": {"sj_credits": "7"}},
        headers={"authorization": f"Bearer {TOKEN}"},
    )
    assert answer.status_code == 200
    (found,) = await check_stamps(world.mirror.client, CATALOG)
    assert (found.level.value, found.subject) == ("warn", "stamps")
    assert found.found.startswith("1 numbers")
    assert "token of its own" in found.to_do


async def test_what_was_written_before_our_first_stamp_is_no_trouble(world):
    """The old system used this token; it has stopped."""
    contact = await world.student(credits={"sj_credits": 3})
    await world._http.patch(
        f"/crm/objects/2026-09/contacts/{contact.hubspot_id}",
        json={"properties": {"cs_credits": "7"}},
        headers={"authorization": f"Bearer {TOKEN}"},
    )
    await grant(world.db, contact, "sj_credits", 2)
    await push_until(world.mirror, max_s=20)
    assert said(await check_stamps(world.mirror.client, CATALOG)) == [("ok", "stamps")]


async def test_histories_whose_times_differ_are_a_failure_where_nobody_can_keep_it(world):
    """On such a portal our own writes would be taken for a person's; without a database nobody remembers."""
    contact = await written(world)
    record = (await world.record(CONTACT, contact.hubspot_id))["history"]
    later = record["sj_credits"][0]["timestamp"].replace(".", ".9")[:23] + "Z"
    stamp, number = record["tallybook_sync"][0], record["sj_credits"][0]
    source = {"sourceType": stamp["sourceType"], "sourceId": stamp["sourceId"]}
    body = {
        "status": "COMPLETE",
        "results": [
            {
                "id": contact.hubspot_id,
                "createdAt": later,
                "updatedAt": later,
                "properties": {},
                "propertiesWithHistory": {
                    "tallybook_sync": [{"value": stamp["value"], "timestamp": stamp["timestamp"], **source}],
                    "sj_credits": [{"value": number["value"], "timestamp": later, **source}],
                },
            }
        ],
    }
    await world.fault("/contacts/batch/read$", status=200, body=body)
    (found,) = await check_stamps(world.mirror.client, CATALOG)
    assert (found.level.value, found.subject) == ("fail", "stamps")


@pytest.fixture
async def skewed(world):
    """The world on a portal that spreads the times of one request over 800 ms: of two values, or of three."""
    await world.portal.post("settings", stamp_skew_ms=800)
    yield world
    await world.portal.post("settings", stamp_skew_ms=0)


async def written_once(world):
    """A student whose balance we wrote once; nobody has read it back yet."""
    await demand_same_portal(world.mirror)
    contact = await world.student(credits={"sj_credits": 3})
    # As if minutes ago: values of another request just before would pull the times together.
    await world.portal.post("settings", advance_s=60)
    await grant(world.db, contact, "sj_credits", 2)
    await world.fault("/contacts/batch/read$", status=403, times=1)
    await push_until(world.mirror, max_s=1)
    assert (await world.properties(CONTACT, contact.hubspot_id))["sj_credits"] == "5"
    return contact


async def stamps(world):
    """What doctor says about the stamps: (level, text)."""
    (found,) = await check_stamps(world.mirror.client, CATALOG, world.db)
    return found.level.value, found.found


async def test_times_that_differ_are_found_and_kept_for_this_portal(skewed):
    """From the next reading on our own writes are recognised; on the way there doctor says what it does."""
    contact = await written_once(skewed)
    level, text = await stamps(skewed)
    apart_ms = (await show_sync_status(skewed.db))["portal"]["stamps_apart_ms"]
    assert apart_ms in {400, 800}
    assert (level, "from now on" in text) == ("warn", True)
    assert f"up to {apart_ms / 1000:.3f} s apart" in text
    await skewed.resume("contact")
    await skewed.due()
    await push_until(skewed.mirror, max_s=20)
    assert await skewed.outbox() == {}
    assert (await balances(skewed.db, contact))["sj_credits"] == 5
    # Known by now; and where the newest ones are equal, it stays known.
    level, text = await stamps(skewed)
    assert (level, "from now on" in text) == ("ok", False)
    assert "own writes are recognised within 2 s on this portal" in text
    await skewed.portal.post("settings", stamp_skew_ms=0)
    assert (await stamps(skewed))[0] == "ok"
    assert await stamps_apart(skewed.db) in {timedelta(milliseconds=400), timedelta(milliseconds=800)}


async def test_control_while_nobody_knows_our_own_writes_count_as_edits(skewed):
    """Negative control: what doctor is for. Two credits are granted, and more than two arrive."""
    contact = await written_once(skewed)
    await skewed.resume("contact")
    await skewed.due()
    await push_until(skewed.mirror, max_s=2)
    assert (await balances(skewed.db, contact))["sj_credits"] > 5


async def test_what_is_known_of_a_portal_is_forgotten_with_it(skewed):
    """Bound to another portal, times are exact again; bound to the same one anew, they are as they were."""
    await written_once(skewed)
    await stamps(skewed)
    (name,) = await skewed.rows("select value -> 'portal_id' from tallybook.sync_state where name = 'portal'")
    for portal_id, within in ((name[0], ONE_REQUEST), (4711, SAME_TIME)):
        await skewed.portal.post("settings", portal_id=portal_id)
        await rebind_mirror(skewed.mirror, actor="cli:test")
        assert await own_within(skewed.db) == within
    await skewed.portal.post("settings", portal_id=name[0])


async def test_a_database_that_is_not_bound_to_the_portal_keeps_nothing_of_it(skewed):
    """It would be taken for true of the portal it is bound to."""
    await written_once(skewed)
    await skewed.rows(
        "update tallybook.sync_state set value = value || '{\"portal_id\": 4711}' where name = 'portal'"
    )
    assert (await stamps(skewed))[0] == "fail"
    assert await own_within(skewed.db) == SAME_TIME


async def test_another_program_that_copies_our_numbers_is_no_sign_of_such_a_portal(world):
    """Each stamp has its own number at its own time; the copy half a second later has none."""
    contact = await written(world)
    headers = {"authorization": f"Bearer {TOKEN}"}
    for number in ("9", "5"):
        path = f"/crm/objects/2026-09/contacts/{contact.hubspot_id}"
        await world._http.patch(path, json={"properties": {"sj_credits": number}}, headers=headers)
    level, text = await stamps(world)
    assert (level, text.startswith("2 numbers")) == ("warn", True)
    assert await own_within(world.db) == SAME_TIME


async def test_a_database_and_a_portal_that_do_not_belong_together_are_named(world):
    """Not bound yet; bound; a token of another portal; a portal that belongs to another database."""
    assert "not bound" in (await check_binding(world.mirror))[0].found
    await demand_same_portal(world.mirror)
    await raise_epoch(world.mirror)
    assert said(await check_binding(world.mirror)) == [("ok", "binding")]
    portal = "update tallybook.sync_state set value = value || %s::jsonb where name = 'portal'"
    bound_to = await world.value(
        "select value -> 'portal_id' from tallybook.sync_state where name = 'portal'"
    )
    await world.rows(portal, json.dumps({"portal_id": 4711}))
    (found,) = await check_binding(world.mirror)
    assert (found.level.value, "portal 4711" in found.found) == ("fail", True)
    await world.rows(portal, json.dumps({"portal_id": bound_to}))
    marker = PortalMarker(uuid4(), 7)
    call = {"kind": CallKind.RECONCILE, "deadline_s": 5}
    await world.mirror.client.describe_property("contacts", "tallybook_sync", marker.text, **call)
    (found,) = await check_binding(world.mirror)
    assert (found.level.value, str(marker.database_id) in found.found) == ("fail", True)
    # Whoever only looks does no harm to the other.
    (found,) = await check_binding(dataclasses.replace(world.mirror, observe=True))
    assert found.level.value == "warn"


async def test_a_stop_of_all_pushing_is_named_with_its_reason(world):
    """And with the command that ends it."""
    await demand_same_portal(world.mirror)
    await world.rows(
        "insert into tallybook.sync_state (name, value) values ('hold', %s::jsonb)",
        json.dumps({"reason": "restored"}),
    )
    (found,) = await check_binding(world.mirror)
    assert (found.level.value, found.found) == ("fail", "nothing is pushed: restored")
    assert "reconcile --after-restore" in found.to_do


async def test_doctor_shows_all_of_it(world, tmp_path, portal, database_uri):
    """Scopes, stamps and the binding are lines of their own; in observe mode nothing is tried."""
    await written(world)
    settings = {
        "DATABASE_URL": database_uri,
        "TALLYBOOK_SECRET_KEY": SECRET_KEY,
        "TALLYBOOK_LOGIN_CODE": "email",
        "TALLYBOOK_SMTP_URL": "smtp://127.0.0.1:25",
        "TALLYBOOK_MAIL_FROM": "a@example.com",
        "HS_PRIVATE_APP_TOKEN": TOKEN,
        "HUBSPOT_BASE_URL": portal.url,
    }
    tallybook = CommandLine(tmp_path, settings)
    found = {each["subject"]: each["level"] for each in tallybook.json("doctor")}
    assert {found[name] for name in ("HubSpot scopes", "stamps", "binding")} == {"ok"}
    before = await world.calls()
    observed = json.loads(tallybook("doctor", "--json", TALLYBOOK_MODE="observe").stdout)
    assert "HubSpot scopes" not in {each["subject"] for each in observed}
    assert (await world.calls())["batch_update"] == before["batch_update"]
