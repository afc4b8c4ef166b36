"""A student who is looked up in HubSpot comes into this database only from the portal it belongs to."""

import asyncio
import dataclasses
from functools import partial

import pytest

from support.factories import CATALOG
from tallybook.domain.contacts import Pair
from tallybook.domain.errors import CrmBusy, CrmUnavailable, DatabaseUnavailable, SetupError
from tallybook.postgres.pool import Database
from tallybook.usecases.find_student import Students
from tallybook.usecases.guard_mirror import PortalGuard, demand_same_portal, demand_same_portal_to_read


def look_ups(mirror, *, db=None, refused_for_s=0.0):
    """The look-ups of a server process that has just started."""
    mirror = dataclasses.replace(mirror, db=db or mirror.db)
    look = partial(demand_same_portal_to_read, mirror)
    guard = PortalGuard(look, refused_for_s=refused_for_s)
    return Students(mirror.client, mirror.db, CATALOG, guard)


async def ask(students, n):
    """One look-up of the student with this number."""
    pair = Pair(f"M{n}", f"m{n}@example.com")
    return await students.fetch(pair=pair, hubspot_id=None, signed=True)


async def stored(owner):
    cursor = await owner.execute("select student_id from tallybook.contacts order by student_id")
    return [student_id for (student_id,) in await cursor.fetchall()]


async def calls(portal):
    return (await portal.stats())["calls"]


@pytest.fixture(autouse=True)
async def people(portal, mirror):
    """Twelve students of the portal."""
    for n in range(12):
        properties = {"email": f"m{n}@example.com", "student_id": f"M{n}", "sj_credits": "3"}
        await portal.post("edits", object_type="contacts", properties=properties)


async def test_whose_portal_it_is_is_asked_once_for_many_look_ups(mirror, portal, owner):
    """Twelve look-ups one after the other, half of them at once with others: two calls more, no more."""
    students = look_ups(mirror)
    before = await calls(portal)
    await asyncio.gather(*(ask(students, n) for n in range(6)))
    for n in range(6, 12):
        assert (await ask(students, n)).stored
    after = await calls(portal)
    assert (after["account"] - before["account"], after["properties"] - before["properties"]) == (1, 1)
    assert len(await stored(owner)) == 12


async def test_from_another_portal_nobody_is_stored_though_it_tells_late_whose_it_is(mirror, portal, owner):
    """The record comes long before the answer to whose it is: the student hears when to come back."""
    await demand_same_portal(mirror)
    await portal.post("settings", portal_id=4711)
    await portal.post("faults", path="/account-info/", delay_ms=300, times=1)
    with pytest.raises(CrmUnavailable) as caught:
        await ask(look_ups(mirror), 0)
    assert caught.value.retry_after_s == 60
    assert await stored(owner) == []


async def test_while_that_is_known_no_call_is_made_and_the_right_token_ends_it(mirror, portal, owner):
    """A refusal is remembered for some seconds; then it is asked anew."""
    await demand_same_portal(mirror)
    before = (await mirror.client.account_details(kind="miss", deadline_s=5)).portal_id
    await portal.post("settings", portal_id=4711)
    remembering, asking = look_ups(mirror, refused_for_s=60), look_ups(mirror)
    for students in (remembering, asking):
        with pytest.raises(CrmUnavailable):
            await ask(students, 1)
    made = (await portal.stats())["total"]
    with pytest.raises(CrmUnavailable):
        await ask(remembering, 2)
    assert (await portal.stats())["total"] == made
    await portal.post("settings", portal_id=before)
    assert (await ask(asking, 2)).stored
    assert await stored(owner) == ["M2"]


async def test_of_a_database_that_was_restored_nobody_new_is_stored_before_it_is_compared(mirror, owner):
    """People of the forgotten hour get their ids back first."""
    await demand_same_portal(mirror)
    await owner.execute("select tallybook.hold_pushing('restored', '{}')")
    with pytest.raises(CrmUnavailable):
        await ask(look_ups(mirror), 3)
    assert await stored(owner) == []


async def test_who_only_observes_stores_students_of_any_database_s_portal(mirror, portal, owner):
    """And writes nothing there, not even whose it is."""
    observing = dataclasses.replace(mirror, observe=True)
    before = await calls(portal)
    assert (await ask(look_ups(observing), 4)).stored
    assert (await calls(portal)) == before | {
        name: before[name] + 1 for name in ("account", "properties", "batch_read")
    }


async def test_while_it_cannot_be_asked_nobody_is_stored_but_who_knew_goes_on(mirror, portal, owner):
    """A portal that has never told is not trusted; one that has is, while it is in trouble."""
    await portal.post("faults", path="/account-info/", status=503, times=50)
    with pytest.raises(CrmBusy):
        await ask(look_ups(mirror), 5)
    assert await stored(owner) == []
    guard = PortalGuard(partial(demand_same_portal_to_read, mirror), is_known=True)
    guard._known_until = 0.0
    assert (await ask(Students(mirror.client, mirror.db, CATALOG, guard), 5)).stored
    assert await stored(owner) == ["M5"]


async def test_a_database_that_is_away_costs_no_call_and_the_answer_stands(mirror, portal, database_name):
    """A process that has never looked answers from HubSpot all the same, and stores nothing."""
    away = Database("postgresql://nobody@127.0.0.1:9/none", size=1)
    try:
        before = await calls(portal)
        found = await ask(look_ups(mirror, db=away), 6)
        assert (found.stored, found.contact.student_id) == (False, "M6")
        assert await calls(portal) == before | {"batch_read": before["batch_read"] + 1}
        with pytest.raises(DatabaseUnavailable):
            await demand_same_portal_to_read(dataclasses.replace(mirror, db=away))
    finally:
        await away.close()


async def test_many_who_ask_at_once_hear_one_answer(mirror, portal):
    """Also a refusal is asked for once; and who gave up has not spoilt it for the others."""
    await demand_same_portal(mirror)
    await portal.post("settings", portal_id=4711)
    await portal.post("faults", path="/account-info/", delay_ms=200, times=1)
    guard = PortalGuard(partial(demand_same_portal_to_read, mirror))
    before = await calls(portal)
    impatient, *patient = [asyncio.create_task(guard.demand()) for _ in range(5)]
    await asyncio.sleep(0.05)
    impatient.cancel()
    heard = await asyncio.gather(*patient, return_exceptions=True)
    assert [type(each) for each in heard] == [SetupError] * 4
    assert (await calls(portal))["account"] == before["account"] + 1


async def test_a_server_that_has_looked_ahead_makes_one_call_for_its_first_student(mirror, portal):
    guard = PortalGuard(partial(demand_same_portal_to_read, mirror))
    await guard.look_ahead()
    before = await calls(portal)
    assert (await ask(Students(mirror.client, mirror.db, CATALOG, guard), 7)).stored
    assert await calls(portal) == before | {"batch_read": before["batch_read"] + 1}


@pytest.mark.parametrize("trouble", [{"status": 503, "times": 50}, {"delay_ms": 8_000, "times": 1}])
async def test_a_portal_in_trouble_keeps_no_server_from_starting(mirror, portal, trouble):
    await portal.post("faults", path="/account-info/", **trouble)
    guard = PortalGuard(partial(demand_same_portal_to_read, mirror))
    async with asyncio.timeout(5):
        await guard.look_ahead()
