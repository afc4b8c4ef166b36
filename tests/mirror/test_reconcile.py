"""Reconciling finds what nothing else does, and changes nothing where nothing differs."""

import pytest

from support.factories import book, make_mock_exam
from tallybook.domain.mirror import MirroredType
from tallybook.jobs.push_changes import push_until
from tallybook.jobs.reconcile import reconcile, reconcile_daily
from tallybook.usecases.import_portal import import_portal

BOOKINGS = "2-50158943"


@pytest.fixture
async def both(mirror, portal):
    """Two hundred and fifty students, twenty mock exams and forty bookings on both sides, all settled."""
    await portal.post("populate", contacts=250, mock_exams=20, bookings=40)
    await import_portal(mirror)
    await settle(mirror)
    return mirror


async def settle(mirror):
    for _ in range(20):
        result = await push_until(mirror, max_s=20)
        if result.done and not result.counts.get("claimed"):
            return
    raise AssertionError("the outbox never became empty")


async def whole(mirror, *, repair=True):
    result = await reconcile(mirror, max_s=60, repair=repair)
    assert result.done
    return result.counts


async def writes(portal):
    """Calls that change something."""
    calls = (await portal.stats())["calls"]
    return {name: count for name, count in calls.items() if name.split("_")[-1] in WRITING and count}


WRITING = {"create", "update", "upsert", "archive", "delete", "merge"}


async def test_where_nothing_differs_nothing_is_written_and_the_calls_are_counted(both, portal, inbox, owner):
    """No write, no hint, no outbox row; `calls` is what HubSpot counted."""
    await owner.execute("delete from tallybook.inbox")
    before, written = (await portal.stats())["total"], await writes(portal)
    counts = await whole(both)
    assert (counts["seen"], counts["unseen"], counts["unpushed"]) == (310, 0, 0)
    assert counts["calls"] == (await portal.stats())["total"] - before
    assert await writes(portal) == written
    assert await inbox.count() == 0
    cursor = await owner.execute("select count(*) from tallybook.outbox")
    assert (await cursor.fetchone())[0] == 0


async def test_an_edit_that_no_search_shows_is_found(both, portal, owner):
    """As if both webhook and search had lost it."""
    page = await both.client.list_page("contacts", properties=(), kind="import", deadline_s=5, limit=3)
    edited = page.results[2].id
    await portal.post("edits", object_type="contacts", id=edited, properties={"cs_credits": "19"}, user="ann")
    await whole(both)
    cursor = await owner.execute(
        "select b.balance from tallybook.credit_balances b join tallybook.contacts c on c.id = b.contact_id"
        " where c.hubspot_id = %s and b.credit_type = 'cs_credits'",
        (edited,),
    )
    assert (await cursor.fetchone())[0] == 19


async def test_what_hubspots_list_lacks_is_read_by_itself_before_it_counts_as_deleted(
    both, portal, inbox, owner
):
    """One contact is archived without a word: asked for singly, and then archived here too."""
    page = await both.client.list_page("contacts", properties=(), kind="import", deadline_s=5, limit=100)
    gone = [page.results[n].id for n in (0, 57, 99)]
    for each in gone:
        await portal.post("edits", object_type="contacts", id=each, properties={}, archived=True)
    await owner.execute("delete from tallybook.inbox")
    counts = await whole(both)
    assert counts["unseen"] == 3
    assert sorted(row[0] for row in await inbox.rows()) == sorted(gone)
    await inbox.follow(MirroredType.CONTACT)
    cursor = await owner.execute(
        "select hubspot_id from tallybook.contacts where archived_at is not null order by 1"
    )
    assert [row[0] for row in await cursor.fetchall()] == sorted(gone)


async def test_what_hubspot_was_not_told_is_queued_with_repair_and_only_counted_without(both, portal, owner):
    """An outbox row that vanished: found, queued, pushed."""
    cursor = await owner.execute("select id, hubspot_id from tallybook.contacts where student_id = '1599000'")
    contact_id, hubspot_id = await cursor.fetchone()
    await owner.execute(
        "insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor)"
        " values (%s, 'sj_credits', 4, 'correction', 'cli:test')",
        (contact_id,),
    )
    await owner.execute("delete from tallybook.outbox")
    assert (await whole(both, repair=False))["unpushed"] == 1
    cursor = await owner.execute("select count(*) from tallybook.outbox")
    assert (await cursor.fetchone())[0] == 0
    assert (await whole(both))["unpushed"] == 1
    await settle(both)
    there = await portal.door.get(f"/_simulator/records/contacts/{hubspot_id}")
    assert there.json()["properties"]["sj_credits"] == "9"
    assert (await whole(both))["unpushed"] == 0


async def test_it_goes_on_where_it_was_stopped(both, owner):
    """A page at a time: the counts of all slices together are those of one reconcile."""
    at_once = await whole(both)
    slices = 0
    while not (result := await reconcile(both, max_s=0, repair=True)).done:
        slices += 1
    assert slices >= 3
    for name in ("seen", "ours", "unseen", "unpushed"):
        assert result.counts.get(name, 0) == at_once.get(name, 0), name


async def test_it_stops_as_soon_as_it_is_told_to(both):
    """As by Ctrl-C: the time it was given is no longer waited for, and nothing is compared twice."""
    assert not (await reconcile(both, max_s=60, go_on=lambda: False)).done
    assert (await whole(both))["seen"] == 310


async def test_a_reconcile_that_failed_midway_goes_on(both, portal):
    """HubSpot goes away for a while: what was compared is not compared again."""
    await portal.post("faults", path="/objects/.*/2-50158913", times=1, status=400)
    with pytest.raises(Exception, match="HubSpot"):
        await reconcile(both, max_s=60, repair=True)
    counts = await whole(both)
    assert (counts["seen"], counts["unseen"]) == (310, 0)


async def test_once_a_day_is_enough(both, owner):
    """The worker's own begins again a day after the last began; one under way is gone on with."""
    assert (await reconcile_daily(both, max_s=60)).counts["seen"] == 310
    assert (await reconcile_daily(both, max_s=60)).counts == {}
    await owner.execute(
        "update tallybook.sync_state set value = jsonb_set(value, '{complete_at}',"
        " to_jsonb(clock_timestamp() - interval '25 hours')) where name = 'reconcile'"
    )
    assert (await reconcile_daily(both, max_s=60)).counts["seen"] == 310


async def test_a_booking_that_lost_an_association_gets_it_back(both, portal, owner, client):
    """Somebody removed it in HubSpot, which makes no record look newer."""
    exam = await make_mock_exam(both.db, days=40)
    cursor = await owner.execute("select id from tallybook.contacts where student_id = '1599000'")
    (contact_id,) = await cursor.fetchone()

    class Student:
        id = contact_id

    booked = await book(both.db, Student, exam)
    await settle(both)
    cursor = await owner.execute(
        "select b.hubspot_id, c.hubspot_id from tallybook.bookings b"
        " join tallybook.contacts c on c.id = b.contact_id where b.id = %s",
        (booked["id"],),
    )
    booking_id, contact = await cursor.fetchone()
    body = {"inputs": [{"from": {"id": booking_id}, "to": [{"id": contact}]}]}
    answer = await portal.door.post(
        f"/crm/v4/associations/{BOOKINGS}/contacts/batch/archive",
        json=body,
        headers={"authorization": "Bearer somebody"},
    )
    assert answer.is_success, answer.text
    assert len(await linked(portal, booking_id)) == 1
    await whole(both)
    await settle(both)
    assert len(await linked(portal, booking_id)) == 2


async def linked(portal, booking_id):
    there = (await portal.door.get(f"/_simulator/records/{BOOKINGS}/{booking_id}")).json()
    return [each for found in there["associations"].values() for each in found]
