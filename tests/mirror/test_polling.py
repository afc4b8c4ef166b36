"""Searching finds every change without a single webhook: many at one moment, shown late, in any order."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from support.portal import Portal
from tallybook.domain.mirror import MirroredType
from tallybook.usecases.poll_changes import poll_changes

FIRST_STUDENT = 1_599_000


async def stored_students(owner):
    cursor = await owner.execute("select student_id from tallybook.contacts where student_id is not null")
    return [int(row[0]) for row in await cursor.fetchall()]


async def balance_of(owner, hubspot_id, credit_type="sj_credits"):
    cursor = await owner.execute(
        "select b.balance from tallybook.credit_balances b join tallybook.contacts c on c.id = b.contact_id"
        " where c.hubspot_id = %s and b.credit_type = %s",
        (hubspot_id, credit_type),
    )
    row = await cursor.fetchone()
    return row and row[0]


async def contact_ids(mirror, number):
    page = await mirror.client.list_page(
        "contacts", properties=(), kind="import", deadline_s=5, limit=min(100, number)
    )
    return [record.id for record in page.results]


async def edit(portal, hubspot_id, **properties):
    await portal.post(
        "edits", object_type="contacts", id=hubspot_id, properties=properties, user="coordinator"
    )


async def polled(mirror, owner, mirrored=MirroredType.CONTACT):
    """A pass, and the ids it asked for."""
    result = await poll_changes(mirror, mirrored)
    cursor = await owner.execute("delete from tallybook.inbox returning hubspot_id")
    return result, sorted(row[0] for row in await cursor.fetchall())


@pytest.mark.timeout(400)
async def test_thirty_thousand_contacts_of_one_moment_are_pulled_without_a_gap(mirror, portal, owner, inbox):
    """Three times what a search can show, all with one modification time: each is stored, once."""
    await portal.post("populate", contacts=30_000, same_time=True)
    before = await portal.stats()
    result = await inbox.drain(max_s=300)
    assert result.done
    assert sorted(await stored_students(owner)) == list(range(FIRST_STUDENT, FIRST_STUDENT + 30_000))
    calls = {
        name: count - before["calls"].get(name, 0) for name, count in (await portal.stats())["calls"].items()
    }
    print(f"30,000 contacts of one moment: {calls['search']} searches, {calls['batch_read']} reads")
    assert (result.counts["found"], result.counts["asked"]) == (30_000, 30_000)
    assert result.counts["absorbed"] == 30_000
    assert calls["search"] <= 153
    assert calls["batch_read"] <= 305


async def test_an_edit_is_found_once_and_its_value_is_read_from_the_record(mirror, portal, owner, inbox):
    """Later passes overlap with it and ask for nothing."""
    await portal.post("populate", contacts=50)
    await inbox.drain()
    first, *_ = await contact_ids(mirror, 1)
    assert await balance_of(owner, first) == 5
    await edit(portal, first, sj_credits="9")
    result = await inbox.drain()
    assert (result.counts["asked"], result.counts["read"]) == (1, 1)
    assert await balance_of(owner, first) == 9
    for _ in range(3):
        again = await inbox.drain()
        assert (again.counts["found"], again.counts["asked"]) == (1, 0)


async def test_who_was_read_anyway_is_not_asked_for(mirror, portal, owner, inbox):
    """What is stored is as new as what the search shows: own writes and imports cost no further read."""
    await portal.post("populate", contacts=120)
    ids = await contact_ids(mirror, 100)
    await inbox.ask(*ids)
    while await inbox.follow():
        pass
    result = await poll_changes(mirror, MirroredType.CONTACT)
    assert (result.found, result.asked) == (120, 20)


async def test_people_without_a_student_id_are_passed_over_at_first_and_noticed_when_they_change(
    mirror, portal, owner
):
    """Somebody who becomes a student is found; others are asked for once and not again."""
    other = (await portal.post("edits", object_type="contacts", properties={"email": "a@b.example"}))["id"]
    result, asked = await polled(mirror, owner)
    assert (result.found, asked) == (0, [])
    await edit(portal, other, firstname="Ann")
    assert (await polled(mirror, owner))[1] == [other]
    assert (await polled(mirror, owner))[1] == []
    await edit(portal, other, student_id="1599999")
    assert (await polled(mirror, owner))[1] == [other]


@pytest.mark.parametrize("lag_s", [0, 1, 59, 60, 61, 119, 120, 600, 899])
async def test_a_search_that_lags_loses_nothing(mirror, portal, owner, lag_s):
    """Edits every few seconds for half an hour, a pass after each: every one is asked for in the end."""
    await portal.post("populate", contacts=40)
    ids = await contact_ids(mirror, 40)
    await polled(mirror, owner)
    await portal.post("settings", search_lag_s=lag_s)
    left = set(ids)
    found = set()
    for step in range(40 + lag_s // 45 + 45):
        if step < len(ids):
            await edit(portal, ids[step], sj_credits=str(step + 20))
        await portal.post("settings", advance_s=45)
        found |= set((await polled(mirror, owner))[1])
    assert found == left


async def test_control_without_the_overlap_a_lag_loses_edits(mirror, portal, owner, monkeypatch):
    """The control: passes that trust the index miss what it showed late."""
    monkeypatch.setattr("tallybook.usecases.poll_changes._OVERLAP", timedelta())
    monkeypatch.setattr("tallybook.usecases.poll_changes._DEEP_EVERY", timedelta(days=9))
    await portal.post("populate", contacts=5)
    ids = await contact_ids(mirror, 5)
    await polled(mirror, owner)
    await portal.post("settings", search_lag_s=50)
    found = set()
    for step in range(50):
        if step < len(ids):
            await edit(portal, ids[step], sj_credits="20")
        await portal.post("settings", advance_s=45)
        found |= set((await polled(mirror, owner))[1])
    assert found < set(ids)


async def test_the_mark_is_hubspots_clock_and_moves_only_when_a_pass_is_complete(mirror, portal, owner):
    """A portal an hour ahead; a pass that fails on its second page starts no later the next time."""
    await portal.post("settings", advance_s=3600)
    await portal.post("populate", contacts=450)
    await polled(mirror, owner)
    mark = await marks(owner)
    ahead = datetime.fromisoformat(mark["mark"]) - datetime.now(UTC)
    assert 3500 < ahead.total_seconds() < 3700
    for hubspot_id in await contact_ids(mirror, 100):
        await edit(portal, hubspot_id, sj_credits="30")

    result = await poll_changes(mirror, MirroredType.CONTACT, go_on=lambda: False)
    assert result.done
    assert (await marks(owner))["mark"] >= mark["mark"]


async def marks(owner):
    cursor = await owner.execute("select value from tallybook.sync_state where name = 'poll:contact'")
    return (await cursor.fetchone())[0]


async def test_a_pass_that_is_stopped_goes_on_where_it_was(mirror, portal, owner):
    """One page at a time: no page is searched twice, nothing is missing, the mark is that of the start."""
    await portal.post("populate", contacts=1000, same_time=True)
    asked, searches = 0, 0
    while True:
        result = await poll_changes(mirror, MirroredType.CONTACT, go_on=lambda: False)
        searches += result.searches
        asked += result.asked
        if result.done:
            break
        assert (await marks(owner))["mark"] is None
    assert (asked, searches) == (1000, 5)
    assert (await marks(owner))["under_way"] is None


async def test_a_pass_survives_failures_between_its_pages(mirror, portal, owner):
    """The second page fails for good; the next pass begins with it, and what it found is complete."""
    await portal.post("populate", contacts=600, same_time=True)
    await poll_changes(mirror, MirroredType.CONTACT, go_on=lambda: False)
    await portal.post("faults", path="/search", status=400, times=1)
    with pytest.raises(Exception, match="HubSpot"):
        await poll_changes(mirror, MirroredType.CONTACT)
    await poll_changes(mirror, MirroredType.CONTACT)
    cursor = await owner.execute("select count(*), count(distinct hubspot_id) from tallybook.inbox")
    assert await cursor.fetchone() == (600, 600)


async def test_an_answer_without_a_date_moves_no_mark(mirror, portal, owner):
    """Our own clock is no substitute: it may be ahead of HubSpot's."""
    await polled(mirror, owner)
    before = await marks(owner)
    body = '{"total": 0, "results": []}'
    await portal.post("faults", path="/search", status=200, times=1, headers={"date": "soon"}, body=body)
    with pytest.raises(Exception, match="HubSpot"):
        await poll_changes(mirror, MirroredType.CONTACT)
    assert await marks(owner) == before


async def test_results_out_of_order_are_refused(mirror, portal):
    """Paging by id would skip what comes late."""
    one, two = ({"id": n, "updatedAt": "2026-11-01T00:00:00Z", "properties": {}} for n in ("7", "5"))
    import json

    body = json.dumps({"total": 3, "results": [one, two], "paging": {"next": {"after": "2"}}})
    await portal.post("faults", path="/search", status=200, times=1, body=body)
    with pytest.raises(Exception, match="HubSpot"):
        await poll_changes(mirror, MirroredType.CONTACT)


async def test_what_no_search_will_show_again_is_forgotten(mirror, portal, owner):
    """The memory of asked modifications spans the overlap and no more."""
    await portal.post("populate", contacts=300)
    await polled(mirror, owner)
    cursor = await owner.execute("select count(*) from tallybook.polled_records")
    assert (await cursor.fetchone())[0] == 0
    for hubspot_id in (await contact_ids(mirror, 100))[:7]:
        await edit(portal, hubspot_id, sj_credits="30")
    await polled(mirror, owner)
    cursor = await owner.execute("select count(*) from tallybook.polled_records")
    assert (await cursor.fetchone())[0] == 7
    for _ in range(6):
        await portal.post("settings", advance_s=905)
        await polled(mirror, owner)
    cursor = await owner.execute("select count(*) from tallybook.polled_records")
    assert (await cursor.fetchone())[0] == 0


@pytest.mark.parametrize("mirrored", [MirroredType.MOCK_EXAM, MirroredType.BOOKING])
async def test_custom_objects_are_found_by_their_own_modification_time(mirror, portal, owner, mirrored):
    """`hs_lastmodifieddate`."""
    made = await portal.post(
        "edits",
        object_type=mirror.crm_type(mirrored),
        properties={"capacity": "3"} if mirrored is MirroredType.MOCK_EXAM else {"attendance": "Yes"},
    )
    assert (await polled(mirror, owner, mirrored))[1] == [made["id"]]
    assert (await polled(mirror, owner, mirrored))[1] == []


async def test_of_several_processes_one_searches(mirror, portal, owner, inbox):
    """Five at once: the records are asked for once, whoever of them searches."""
    await portal.post("populate", contacts=500, same_time=True)
    results = await asyncio.gather(*(inbox.drain() for _ in range(5)))
    assert sum(each.counts.get("already_polling", 0) for each in results) >= 1
    assert sum(each.counts.get("asked", 0) for each in results) == 500
    assert len(await stored_students(owner)) == 500
    assert isinstance(portal, Portal)
