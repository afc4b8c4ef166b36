"""`verify --mirror`: what is settled is equal on both sides; what is not is neither right nor wrong."""

import asyncio
import dataclasses
import json

import pytest

from support.commands import SECRET_KEY, CommandLine
from support.factories import book, cancel, grant
from support.push_world import BOOKING, CONTACT, MOCK_EXAM, TOKEN
from tallybook.domain.errors import SetupError
from tallybook.hubspot.budget import CallKind
from tallybook.jobs.push_changes import push_until
from tallybook.usecases.pull_contacts import pull_contacts
from tallybook.usecases.verify_mirror import verify_mirror


async def in_step(world, *, students=3):
    """Students with a booking each, one of them cancelled, all written to HubSpot."""
    exam = await world.exam(mirrored=False, capacity=200)
    made = []
    for _ in range(students):
        contact = await world.student(credits={"sj_credits": 3, "cs_credits": 0})
        made.append((contact, await book(world.db, contact, exam)))
    await cancel(world.db, *made[0])
    await pushed(world)
    return exam, made


async def pushed(world):
    """Nothing waits any more; a booking waits for the id of its session first."""
    async with asyncio.timeout(30):
        while await world.outbox():
            await world.due()
            await push_until(world.mirror, max_s=20)


def figures(report):
    return {of.value: (each.objects, each.compared, each.different) for of, each in report.compared.items()}


def told(report):
    return {(each.object_type.value, each.field, each.ours, each.theirs) for each in report.differences}


async def test_both_sides_in_step_are_found_equal(world):
    """Numbers, texts, times, seats, both associations; whatever HubSpot leaves empty is 0."""
    await in_step(world)
    report = await verify_mirror(world.mirror)
    assert told(report) == set()
    assert report.ok
    assert figures(report) == {"contact": (3, 3, 0), "mock_exam": (1, 1, 0), "booking": (3, 3, 0)}


@pytest.mark.parametrize(
    ("lane", "name", "text", "ours"),
    [
        (CONTACT, "sj_credits", "9", "2"),
        (CONTACT, "sj_credits", "12abc", "2"),
        (CONTACT, "cs_credits", "1", "0"),
        (CONTACT, "lastname", "Byron", "Lovelace"),
        (MOCK_EXAM, "total_bookings", "7", "2"),
        (MOCK_EXAM, "capacity", "201", "200"),
        (MOCK_EXAM, "location", "Calgary", "Mississauga"),
        (BOOKING, "is_active", "Cancelled", "Active"),
        (BOOKING, "attendance", "Yes", None),
        (BOOKING, "token_used", "Shared Token", "Situational Judgment Token"),
    ],
)
async def test_a_value_that_differs_is_told_with_both_sides(world, lane, name, text, ours):
    """Somebody typed it and nobody has heard of it: one object, one field."""
    exam, made = await in_step(world)
    contact, booking = made[1]
    record_id = {
        CONTACT: contact.hubspot_id,
        MOCK_EXAM: await world.hubspot_id("mock_exams", exam.id),
        BOOKING: await world.hubspot_id("bookings", booking["id"]),
    }[lane]
    await world.edit(lane, record_id, **{name: text})
    report = await verify_mirror(world.mirror)
    assert not report.ok
    # A session in another place is one at another time of the day there, too.
    assert (lane.value, name, ours, text) in told(report)
    assert {each.hubspot_id for each in report.differences} == {record_id}
    assert sum(each.different for each in report.compared.values()) == 1


async def test_an_association_that_is_gone_is_told(world):
    """HubSpot shows the booking with nobody's name on it."""
    _, made = await in_step(world)
    contact, booking = made[1]
    booking_id = await world.hubspot_id("bookings", booking["id"])
    bookings = world.mirror.crm_type(BOOKING)
    answer = await world._http.delete(
        f"/crm/v4/objects/{bookings}/{booking_id}/associations/contacts/{contact.hubspot_id}",
        headers={"authorization": f"Bearer {TOKEN}"},
    )
    assert answer.status_code == 204, answer.text
    report = await verify_mirror(world.mirror)
    assert told(report) == {("booking", "association with the contact", contact.hubspot_id, "")}


async def test_a_record_that_is_gone_or_never_came_is_told(world):
    """Archived there without our knowing; given up on here."""
    _, made = await in_step(world)
    contact, _ = made[2]
    await world.portal.post("edits", object_type="contacts", id=contact.hubspot_id, archived=True)
    new = await book(world.db, made[1][0], await world.exam(mirrored=False, days=9))
    await world.rows("delete from tallybook.outbox where object_id = %s", new["id"])
    await pushed(world)
    report = await verify_mirror(world.mirror)
    assert told(report) == {
        ("contact", "record", "there", None),
        ("booking", "association with the contact", contact.hubspot_id, ""),
        ("booking", "record", "never written to HubSpot", None),
    }


async def test_a_contact_archived_on_both_sides_is_in_step(world):
    """Found in HubSpot although archived here it is not."""
    _, made = await in_step(world)
    contact, _ = made[2]
    await world.rows("update tallybook.contacts set archived_at = now() where id = %s", contact.id)
    assert told(await verify_mirror(world.mirror)) == {("contact", "record", "archived", "there")}
    await world.portal.post("edits", object_type="contacts", id=contact.hubspot_id, archived=True)
    assert (await verify_mirror(world.mirror)).ok


@pytest.mark.parametrize(
    "unsettled",
    [
        "insert into tallybook.outbox (object_type, object_id) values ('contact', %(id)s)",
        "insert into tallybook.outbox (object_type, object_id, dead_at) values ('contact', %(id)s, now())",
        "select tallybook.ask_to_read('contact', array[%(hubspot_id)s], 60)",
        "update tallybook.contacts set crm_unread = true where id = %(id)s",
        "select tallybook.open_conflict('contact', %(id)s, 'email', 'both_changed', 'a', 'b', '{}', false)",
    ],
)
async def test_what_is_on_its_way_or_waits_for_a_person_is_skipped(world, unsettled):
    """A change, a dead letter, a hint, an unread write, a conflict: the difference says nothing yet."""
    _, made = await in_step(world)
    contact, _ = made[1]
    await world.edit(CONTACT, contact.hubspot_id, sj_credits="9")
    named = {"id": contact.id, "hubspot_id": contact.hubspot_id}
    async with world.db.connection() as connection:
        await connection.execute(unsettled, named)
    report = await verify_mirror(world.mirror)
    assert report.ok
    assert figures(report)["contact"] == (3, 2, 0)
    counts = report.compared[CONTACT]
    assert (counts.settled, counts.skipped) == (2, 1)


async def test_an_object_that_changes_while_hubspot_is_read_is_not_judged(world):
    """Granted and pushed in the middle: HubSpot's answer may be either."""
    _, made = await in_step(world)
    contact, _ = made[1]
    await world.fault(world.batch(CONTACT, "read"), delay_ms=1500)
    verifying = asyncio.create_task(verify_mirror(world.mirror))
    await asyncio.sleep(0.5)
    await grant(world.db, contact, "sj_credits", 5)
    await world.rows("delete from tallybook.outbox where object_id = %s", contact.id)
    report = await verifying
    assert report.ok
    assert figures(report)["contact"] == (3, 2, 0)
    # The negative control: left alone, the very same state is a difference.
    assert told(await verify_mirror(world.mirror)) == {("contact", "sj_credits", "7", "2")}


async def test_who_waits_sees_what_is_on_its_way_arrive(world):
    """A change that is pushed a second later, and a hint that is followed."""
    _, made = await in_step(world)
    contact, _ = made[1]
    await grant(world.db, contact, "sj_credits", 1)
    assert figures(await verify_mirror(world.mirror))["contact"] == (3, 2, 0)
    verifying = asyncio.create_task(verify_mirror(world.mirror, wait_s=30))
    await asyncio.sleep(0.5)
    await pushed(world)
    report = await verifying
    assert report.ok
    assert figures(report)["contact"] == (3, 3, 0)
    assert report.waited_s < 20


async def test_a_property_that_hubspot_calculates_is_not_compared(world):
    """Nobody can write it, so nobody is wrong about it."""
    exam, _ = await in_step(world)
    await world.edit(MOCK_EXAM, await world.hubspot_id("mock_exams", exam.id), total_bookings="7")
    assert not (await verify_mirror(world.mirror)).ok
    exams = world.mirror.crm_type(MOCK_EXAM)
    answer = await world._http.get(
        f"/crm/v3/properties/{exams}", headers={"authorization": f"Bearer {TOKEN}"}
    )
    body = answer.json()
    for each in body["results"]:
        each["calculated"] = each["name"] == "total_bookings"
    await world.fault(f"/properties/.*/{exams}$", status=200, body=body)
    async with world.portal.client(token=TOKEN) as client:
        assert (await verify_mirror(dataclasses.replace(world.mirror, client=client))).ok


async def test_everything_is_walked_a_hundred_at_a_time(world):
    """250 students and three pages: three calls for them, and the counts say so as it goes."""
    hubspot_ids = [
        await world.create("contacts", email=f"many{n}@example.com", student_id=f"M{n}") for n in range(250)
    ]
    await pull_contacts(world.mirror, hubspot_ids, kind=CallKind.PULL)
    await pushed(world)
    before = await world.calls()
    seen = []
    report = await verify_mirror(
        world.mirror, on_progress=lambda counts: seen.append(counts[CONTACT].compared)
    )
    assert figures(report)["contact"] == (250, 250, 0)
    assert (await world.calls())["batch_read"] - before["batch_read"] == 3
    assert seen == sorted(seen)
    assert seen[-1] == 250


async def test_another_portal_is_refused(world):
    """Every record would be missing there."""
    await in_step(world)
    await world.rows(
        "insert into tallybook.sync_state (name, value) values ('portal', '{\"portal_id\": 4711}')"
        " on conflict (name) do update set value = excluded.value"
    )
    with pytest.raises(SetupError, match="4711"):
        await verify_mirror(world.mirror)


async def test_the_command_lists_differences_and_fails(world, tmp_path, portal, database_uri):
    """As text and as JSON; without --mirror HubSpot is not asked."""
    _, made = await in_step(world)
    settings = {
        "DATABASE_URL": database_uri,
        "TALLYBOOK_SECRET_KEY": SECRET_KEY,
        "TALLYBOOK_LOGIN_CODE": "none",
        "HS_PRIVATE_APP_TOKEN": TOKEN,
        "HUBSPOT_BASE_URL": portal.url,
    }
    tallybook = CommandLine(tmp_path, settings)
    assert "Whatever is settled is the same in HubSpot." in tallybook("verify", "--mirror").stdout
    await world.edit(CONTACT, made[1][0].hubspot_id, sj_credits="9")
    shown = tallybook("verify", "--mirror", "--wait", "1", code=1).stdout
    assert "sj_credits: ours '2', theirs '9'" in shown
    found = json.loads(tallybook("verify", "--mirror", "--json", code=1).stdout)
    assert (found["ok"], found["mirror"]["ok"], found["violations"]) == (False, False, [])
    assert found["mirror"]["compared"]["contact"] == {
        "objects": 3, "settled": 3, "compared": 3, "different": 1, "skipped": 0,
    }  # fmt: skip
    assert tallybook.json("verify")["ok"]
    assert "HS_PRIVATE_APP_TOKEN" in tallybook.error("verify", "--mirror", HS_PRIVATE_APP_TOKEN=None)[0]
