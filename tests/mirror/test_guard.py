"""A database and a portal belong together: another portal, a copy and a backup are found out."""

import dataclasses
import re
from uuid import UUID

import pytest

from support.factories import CATALOG, balances, book, make_contact, make_mock_exam
from tallybook.domain.errors import CrmUnavailable, SetupError
from tallybook.domain.portal_marker import PortalMarker
from tallybook.hubspot.budget import CallKind
from tallybook.postgres.pool import Database
from tallybook.usecases.guard_mirror import demand_same_portal, raise_epoch, read_portal
from tallybook.usecases.rebind_mirror import read_bindings, rebind_mirror

CALL = {"kind": CallKind.RECONCILE, "deadline_s": 5}


async def state(owner, name):
    cursor = await owner.execute("select value from tallybook.sync_state where name = %s", (name,))
    row = await cursor.fetchone()
    return row[0] if row else None


async def hold(owner):
    cursor = await owner.execute("select tallybook.push_hold()")
    return (await cursor.fetchone())[0]


async def marker(mirror):
    return (await read_portal(mirror)).marker


async def something_was_pushed(owner):
    """Five minutes ago the epoch was raised, and an object has left the outbox since."""
    await owner.execute(
        "update tallybook.sync_state set value = value || jsonb_build_object("
        "'raised_at', now() - interval '6 minutes', 'departures', -1) where name = 'epoch'"
    )


@pytest.fixture
async def copied(mirror, postgres_server, database_name, db):
    """Makes a copy of the database as it is now, as `pg_dump` and restoring would: `await copied()`."""
    made = []

    async def copy():
        await db.close()
        name = await postgres_server.create_database(template=database_name)
        made.append((name, Database(postgres_server.uri(name), size=2)))
        return dataclasses.replace(mirror, db=made[-1][1])

    yield copy
    for name, database in made:
        await database.close()
        await postgres_server.drop_database(name)


async def test_first_contact_binds_database_and_portal(mirror, owner):
    """Both ids are kept here, and the marker there names this database."""
    await demand_same_portal(mirror)
    bound = await state(owner, "portal")
    account = await mirror.client.account_details(**CALL)
    assert (bound["portal_id"], bound["time_zone"]) == (account.portal_id, account.time_zone)
    assert await marker(mirror) == PortalMarker(UUID(bound["database_id"]), 1)
    assert await state(owner, "database") == {"database_id": bound["database_id"]}


async def test_another_portal_is_refused_by_both_names(mirror, portal):
    """A token of the wrong account reads and writes nothing; the right one goes on."""
    await demand_same_portal(mirror)
    before = (await mirror.client.account_details(**CALL)).portal_id
    await portal.post("settings", portal_id=4711)
    with pytest.raises(SetupError, match=rf"portal {before}; the token opens portal 4711") as caught:
        await demand_same_portal(mirror)
    assert "sync rebind" in caught.value.hint
    await portal.post("settings", portal_id=before)
    await demand_same_portal(mirror)


async def test_a_portal_that_belongs_to_another_database_is_refused_by_both_names(mirror, owner):
    """An empty database with the production token neither pushes nor is bound."""
    theirs = PortalMarker(UUID(int=7), 12)
    await mirror.client.describe_property("contacts", "tallybook_sync", theirs.text, **CALL)
    with pytest.raises(SetupError, match=str(theirs.database_id)) as caught:
        await demand_same_portal(mirror)
    assert (await state(owner, "database"))["database_id"] in caught.value.message
    assert await state(owner, "portal") is None
    assert await marker(mirror) == theirs


async def test_who_only_observes_may_look_at_any_database_s_portal_and_writes_nothing(mirror, owner, portal):
    """The marker of the database that decides stays as it is."""
    theirs = PortalMarker(UUID(int=7), 12)
    await mirror.client.describe_property("contacts", "tallybook_sync", theirs.text, **CALL)
    await demand_same_portal(dataclasses.replace(mirror, observe=True))
    assert await marker(mirror) == theirs
    assert (await state(owner, "portal"))["portal_id"]


async def test_without_our_property_nothing_is_written_and_nothing_breaks(db, client, owner):
    """Pulling works in a portal that nobody has prepared yet."""
    from tallybook.usecases.mirror import Mirror

    unprepared = Mirror(db, client, CATALOG, "America/Toronto")
    await demand_same_portal(unprepared)
    assert (await read_portal(unprepared)).can_be_marked is False
    assert (await state(owner, "portal"))["portal_id"]
    assert await state(owner, "epoch") is None


async def test_the_epoch_rises_only_after_something_was_pushed(mirror, owner):
    """Looking again and again writes nothing to HubSpot."""
    await demand_same_portal(mirror)
    await demand_same_portal(mirror)
    assert (await marker(mirror)).epoch == 1
    await something_was_pushed(owner)
    await demand_same_portal(mirror)
    assert (await marker(mirror)).epoch == 2
    assert (await state(owner, "epoch"))["confirmed"] == 2


async def test_what_leaves_the_outbox_counts_as_pushed(mirror, owner, db):
    """The statistics of the table tell; nothing else has to remember it."""
    await demand_same_portal(mirror)
    await owner.execute(
        "update tallybook.sync_state set value = value || jsonb_build_object("
        "'raised_at', now() - interval '6 minutes') where name = 'epoch'"
    )
    await owner.execute("select pg_stat_force_next_flush()")
    await demand_same_portal(mirror)
    assert (await marker(mirror)).epoch == 1
    await make_contact(db, credits={"sj_credits": 1})
    await owner.execute(
        "insert into tallybook.outbox (object_type, object_id) select 'contact', id from tallybook.contacts"
        " on conflict do nothing"
    )
    await owner.execute("delete from tallybook.outbox")
    await owner.execute("select pg_stat_force_next_flush()")
    await owner.execute("select 1")
    await demand_same_portal(mirror)
    assert (await marker(mirror)).epoch == 2


async def test_a_copy_of_the_database_is_found_out_as_soon_as_the_original_goes_on(mirror, copied, connect):
    """It is put on hold instead of pushing yesterday's numbers, and HubSpot's marker stays."""
    await demand_same_portal(mirror)
    copy = await copied()
    await raise_epoch(mirror)
    theirs = await connect(copy.db._uri)
    with pytest.raises(SetupError, match="restored from a backup") as caught:
        await demand_same_portal(copy)
    assert "reconcile --after-restore" in caught.value.hint
    assert await hold(theirs) == "restored"
    assert (await state(theirs, "hold"))["epoch_in_hubspot"] == 2
    assert (await state(theirs, "hold"))["epoch"] == 1
    await something_was_pushed(theirs)
    with pytest.raises(SetupError):
        await demand_same_portal(copy)
    assert (await marker(mirror)).epoch == 2
    # The original notices nothing.
    await demand_same_portal(mirror)
    assert await hold(await connect(mirror.db._uri)) is None


async def test_a_copy_that_goes_on_first_stops_the_original(mirror, copied, connect):
    """Two databases never write to one portal; which of them is the right one, a person says."""
    await demand_same_portal(mirror)
    copy = await copied()
    await raise_epoch(copy)
    with pytest.raises(SetupError):
        await demand_same_portal(mirror)
    assert await hold(await connect(mirror.db._uri)) == "restored"


@pytest.mark.parametrize("applied", [False, True])
async def test_a_crash_while_the_epoch_is_raised_is_not_taken_for_a_backup(mirror, portal, owner, applied):
    """Whether HubSpot had it or not: no hold, and the next check repeats the raise."""
    await demand_same_portal(mirror)
    await portal.post(
        "faults", path="properties.*tallybook_sync", status=400, times=1, apply_first=applied, method="PATCH"
    )
    with pytest.raises(CrmUnavailable):
        await raise_epoch(mirror)
    assert (await marker(mirror)).epoch == (2 if applied else 1)
    # The attempt's half minute is over.
    await owner.execute("update tallybook.sync_state set value = value - 'begun_at' where name = 'epoch'")
    await demand_same_portal(mirror)
    assert await hold(owner) is None
    assert (await marker(mirror)).epoch == 3


async def test_two_who_raise_at_once_raise_once(mirror, owner):
    """The second leaves it to the first."""
    await demand_same_portal(mirror)
    await owner.execute("select tallybook.begin_epoch()")
    await raise_epoch(mirror)
    assert (await marker(mirror)).epoch == 1


async def test_a_marker_that_somebody_deleted_is_written_again(mirror):
    """A person who edits the description breaks nothing for longer than a check."""
    await demand_same_portal(mirror)
    await mirror.client.describe_property("contacts", "tallybook_sync", "Please ignore", **CALL)
    await demand_same_portal(mirror)
    assert (await marker(mirror)).epoch == 2


async def link(db, owner):
    """A contact, a session and a booking that HubSpot knows."""
    contact = await make_contact(db, credits={"sj_credits": 4, "cs_credits": 1}, hubspot_id="501")
    exam = await make_mock_exam(db, hubspot_id="601")
    booking = await book(db, contact, exam)
    await owner.execute(
        "update tallybook.bookings set hubspot_id = '701', crm_base = '{\"attendance\": null}'"
    )
    await owner.execute("delete from tallybook.outbox")
    return contact, booking


async def test_rebinding_to_another_portal_forgets_its_records_and_keeps_all_numbers(
    mirror, portal, db, owner
):
    """No old id is read or written in the new portal, and nothing is pulled before the reconcile."""
    await demand_same_portal(mirror)
    contact, booking = await link(db, owner)
    kept = await balances(db, contact)
    await portal.post("settings", portal_id=4711)
    found = await read_bindings(mirror)
    assert (found.changes_portal, found.changes_database) == (True, False)
    assert await rebind_mirror(mirror, actor="cli:test") == 3
    cursor = await owner.execute(
        "select (select count(hubspot_id) from tallybook.contacts)"
        " + (select count(hubspot_id) from tallybook.mock_exams)"
        " + (select count(hubspot_id) from tallybook.bookings)"
        " + (select count(crm_base) from tallybook.credit_balances),"
        " (select array_agg(object_type order by object_type) from tallybook.outbox),"
        " tallybook.find_contact('501')"
    )
    assert await cursor.fetchone() == (0, ["booking", "contact", "mock_exam"], contact.id)
    assert await balances(db, contact) == kept
    cursor = await owner.execute("select status from tallybook.bookings where id = %s", (booking["id"],))
    assert await cursor.fetchone() == ("Active",)
    assert await hold(owner) == "rebound"
    with pytest.raises(SetupError, match="not compared yet") as caught:
        await demand_same_portal(mirror)
    assert "reconcile --after-restore" in caught.value.hint
    assert (await marker(mirror)).epoch == 2


async def test_a_rebind_that_was_interrupted_goes_on(mirror, portal, db, owner):
    """The old portal is refused from the first moment on; the second call forgets what is left."""
    await demand_same_portal(mirror)
    await link(db, owner)
    before = (await mirror.client.account_details(**CALL)).portal_id
    await owner.execute("select tallybook.begin_rebind(4711, 'UTC', 0, 'cli:test')")
    with pytest.raises(SetupError, match="4711"):
        await demand_same_portal(mirror)
    await portal.post("settings", portal_id=4711)
    assert (await read_bindings(mirror)).is_needed
    assert await rebind_mirror(mirror, actor="cli:test") == 3
    assert not (await read_bindings(mirror)).is_needed
    assert (await state(owner, "hold"))["portal_before"] in (before, 4711)


async def test_taking_over_a_portal_from_another_database_keeps_what_is_known_of_it(mirror, db, owner):
    """Same portal: ids stay, the marker names this database, and pushing waits for the comparison."""
    theirs = PortalMarker(UUID(int=7), 12)
    await link(db, owner)
    await mirror.client.describe_property("contacts", "tallybook_sync", theirs.text, **CALL)
    assert (await read_bindings(mirror)).changes_database
    assert await rebind_mirror(mirror, actor="cli:test") == 0
    mine = await marker(mirror)
    assert (str(mine.database_id), mine.epoch) == ((await state(owner, "database"))["database_id"], 13)
    with pytest.raises(SetupError, match="not compared yet"):
        await demand_same_portal(mirror)
    assert await hold(owner) == "rebound"
    cursor = await owner.execute("select count(hubspot_id) from tallybook.contacts")
    assert await cursor.fetchone() == (1,)


def test_a_marker_reads_what_it_writes_and_nothing_else():
    """Text around it does not matter; half an id is none."""
    one = PortalMarker(UUID(int=3), 41)
    assert PortalMarker.parse(f"Hello. {one.text}") == one
    assert PortalMarker.parse(None) is None
    assert PortalMarker.parse(re.sub("-0000", "", one.text)) is None
