"""Hints are followed: each by one worker, many in one call, for as long as it takes, and visibly."""

import asyncio
from uuid import uuid4

import pytest

from support.factories import make_contact
from tallybook.domain.errors import CrmBusy, CrmUnavailable, SetupError
from tallybook.domain.mirror import MirroredType
from tallybook.usecases.pull_changes import claim_hints, follow_hints

CONTACT = MirroredType.CONTACT


@pytest.fixture
async def students(portal, mirror):
    """The HubSpot ids of a hundred students in the portal; none is stored."""
    await portal.post("populate", contacts=100)
    page = await mirror.client.list_page("contacts", properties=(), kind="import", deadline_s=5)
    return [record.id for record in page.results]


async def edit(portal, hubspot_id, **properties):
    await portal.post("edits", object_type="contacts", id=hubspot_id, properties=properties, user="ann")


async def balance(owner, hubspot_id):
    cursor = await owner.execute(
        "select b.balance from tallybook.credit_balances b join tallybook.contacts c on c.id = b.contact_id"
        " where c.hubspot_id = %s and b.credit_type = 'sj_credits'",
        (hubspot_id,),
    )
    row = await cursor.fetchone()
    return row and row[0]


async def lane(owner):
    cursor = await owner.execute("select reason, words from tallybook.sync_lanes where lane = 'pull'")
    return await cursor.fetchone()


async def test_many_hints_about_one_record_are_one_read(portal, inbox, students, owner):
    """Events of ten properties and a request to read: one call, and the inbox is empty."""
    for n in range(10):
        await inbox.event(students[0], what=f"propertyChange{n}")
    await inbox.ask(students[0])
    before = (await portal.stats())["calls"]["batch_read"]
    followed = await inbox.follow()
    assert (followed.hints, followed.read, followed.absorbed) == (11, 1, 1)
    assert (await portal.stats())["calls"]["batch_read"] == before + 1
    assert await inbox.count() == 0
    assert await balance(owner, students[0]) == 5


async def test_a_hundred_records_are_one_call(portal, inbox, students):
    """A full batch, whatever the order in which they were hinted at."""
    await inbox.ask(*reversed(students))
    before = (await portal.stats())["calls"]["batch_read"]
    assert (await inbox.follow()).absorbed == 100
    assert (await portal.stats())["calls"]["batch_read"] == before + 1


async def test_each_hint_is_leased_to_one(mirror, inbox, students):
    """Eight claim at once: no record is claimed twice, none is left out."""
    await inbox.ask(*students)
    for n in range(900):
        await inbox.event(str(10_000 + n))
    leases = await asyncio.gather(*(claim_hints(mirror.db, [CONTACT]) for _ in range(8)))
    claimed = [hint.id for lease in leases if lease for hint in lease.hints]
    assert len(claimed) == len(set(claimed))
    while (lease := await claim_hints(mirror.db, [CONTACT])) is not None:
        assert len(lease.hubspot_ids) <= 100
        claimed += [hint.id for hint in lease.hints]
    assert len(set(claimed)) == len(claimed) == 1000


async def test_a_lease_ends_by_itself_and_the_late_owner_changes_nothing(mirror, inbox, students, owner):
    """After a minute somebody else reads the record; who comes back late leaves the hint to him."""
    await inbox.ask(students[0])
    late = await claim_hints(mirror.db, [CONTACT])
    assert await claim_hints(mirror.db, [CONTACT]) is None
    await inbox.all_due()
    second = await claim_hints(mirror.db, [CONTACT])
    assert second.hubspot_ids == late.hubspot_ids
    await follow_hints(mirror, late)
    assert await inbox.count() == 1
    await follow_hints(mirror, second)
    assert await inbox.count() == 0
    assert await balance(owner, students[0]) == 5


async def test_what_is_asked_while_it_is_read_is_read_again(mirror, portal, inbox, students, owner):
    """The read may have come too early: the request outlives the lease, and a later edit is found."""
    await inbox.ask(students[0])
    lease = await claim_hints(mirror.db, [CONTACT])
    await follow_hints(mirror, lease)
    await inbox.ask(students[0])
    lease = await claim_hints(mirror.db, [CONTACT])
    await inbox.ask(students[0])
    await edit(portal, students[0], sj_credits="8")
    await follow_hints(mirror, lease)
    await edit(portal, students[0], sj_credits="9")
    assert await inbox.count() == 1
    assert (await inbox.follow()).read == 1
    assert await balance(owner, students[0]) == 9
    assert await inbox.count() == 0


async def test_asking_later_does_not_put_off_what_is_due(inbox, students, owner):
    """The earlier of two times counts."""
    await inbox.ask(students[0], after_s=60)
    assert await inbox.follow() is None
    await inbox.ask(students[0])
    await inbox.ask(students[0], after_s=60)
    assert (await inbox.follow()).read == 1
    assert await inbox.count() == 0


async def test_unknown_and_deleted_records_are_no_trouble(mirror, portal, inbox, students, owner):
    """An id nobody has, one that was archived: followed, told as missing, nothing is stored for them."""
    await portal.post("edits", object_type="contacts", id=students[1], properties={}, archived=True)
    for mirrored in MirroredType:
        await inbox.ask("404404404", mirrored=mirrored)
    await inbox.event(students[1], what="deletion")
    await inbox.event(students[0], what="creation")
    counts = [await inbox.follow() for _ in range(3)]
    assert sum(each.missing for each in counts) == 4
    assert await inbox.follow() is None
    assert await inbox.count() == 0
    cursor = await owner.execute("select array_agg(hubspot_id) from tallybook.contacts")
    assert (await cursor.fetchone())[0] == [students[0]]


async def test_all_ids_of_a_merge_are_read(inbox, students, owner):
    """The hint names one; its details the others."""
    await inbox.event(
        students[0], what="merge", details={"primary": [students[0]], "merged": students[1:3], "new": ["1"]}
    )
    followed = await inbox.follow()
    assert (followed.hints, followed.read, followed.missing) == (1, 3, 1)
    cursor = await owner.execute("select count(*) from tallybook.contacts")
    assert (await cursor.fetchone())[0] == 3


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_that_opens_nothing_pauses_pulling_and_is_told(portal, inbox, students, owner, status):
    """The hints stay, people see why; one record is tried when it is time, then everything goes on."""
    await inbox.ask(*students[:50])
    await portal.post("faults", path="/batch/read", status=status, times=2)
    with pytest.raises(SetupError):
        await inbox.follow()
    assert (await lane(owner))[0] in {"unauthorised", "forbidden"}
    await inbox.all_due()
    assert await inbox.follow() is None
    assert await inbox.count() == 50
    cursor = await owner.execute("select max(attempts) from tallybook.inbox")
    assert (await cursor.fetchone())[0] == 0

    await owner.execute("update tallybook.sync_lanes set resume_at = clock_timestamp() where lane = 'pull'")
    with pytest.raises(SetupError):
        await inbox.follow()
    await inbox.all_due()
    assert await inbox.follow() is None
    await owner.execute("update tallybook.sync_lanes set resume_at = clock_timestamp() where lane = 'pull'")
    assert (await inbox.follow()).hints == 1
    assert (await lane(owner))[0] is None
    assert (await inbox.follow()).hints == 49


@pytest.mark.parametrize(("fault", "error"), [({"status": 502}, CrmUnavailable), ({"status": 429}, CrmBusy)])
async def test_while_hubspot_is_away_hints_wait_without_using_up_attempts(
    portal, inbox, students, owner, *, fault, error, monkeypatch
):
    """As often as it takes."""
    monkeypatch.setattr("tallybook.usecases.pull_changes._DEADLINE_S", 0.2)
    await inbox.ask(students[0])
    await portal.post("faults", path="/batch/read", times=100, **fault)
    for _ in range(15):
        await inbox.all_due()
        with pytest.raises(error):
            await inbox.follow()
    cursor = await owner.execute("select attempts, last_error, dead_at from tallybook.inbox")
    assert await cursor.fetchone() == (0, None, None)
    assert await inbox.follow() is None
    await portal.door.delete("/_simulator/faults")
    await inbox.all_due()
    assert (await inbox.follow()).absorbed == 1


async def test_one_record_that_cannot_be_stored_takes_nobody_down(mirror, inbox, students, owner):
    """A batch of a hundred that fails because of one: the others are stored, the one is dead and says why."""
    poisoned = students[42]
    await owner.execute(
        "create function tallybook.poison() returns trigger language plpgsql as"
        f" $$ begin if new.hubspot_id = '{poisoned}' then raise 'poison'; end if; return new; end $$"
    )
    await owner.execute(
        "create trigger poison before insert on tallybook.contacts"
        " for each row execute function tallybook.poison()"
    )
    await inbox.ask(*students)
    assert (await inbox.follow()).failed == 100
    for _ in range(120):
        await inbox.all_due()
        if await inbox.follow() is None:
            break
    cursor = await owner.execute(
        "select hubspot_id, attempts, dead_at is not null, last_error from tallybook.inbox"
    )
    assert await cursor.fetchall() == [(poisoned, 12, True, "RaiseException")]
    cursor = await owner.execute("select count(*) from tallybook.contacts")
    assert (await cursor.fetchone())[0] == 99
    # Asked for anew it gets another chance.
    await owner.execute("drop trigger poison on tallybook.contacts")
    await inbox.ask(poisoned)
    assert (await inbox.follow()).absorbed == 1
    assert await inbox.count() == 0


async def test_a_refused_batch_is_taken_apart(portal, inbox, students, owner):
    """400 for a batch: its records are tried one by one, with HubSpot's words kept on what stays refused."""
    await inbox.ask(*students[:3])
    await portal.post("faults", path="/batch/read", status=400, times=2)
    assert (await inbox.follow()).failed == 3
    await inbox.all_due()
    assert (await inbox.follow()).failed == 1
    for _ in range(3):
        await inbox.all_due()
        assert (await inbox.follow()).absorbed == 1
    assert await inbox.count() == 0


async def test_waits_grow_and_differ(owner):
    """0.5, 2 and 8 seconds, then longer and longer up to ten minutes, each with a share of chance."""
    cursor = await owner.execute(
        "select n, extract(epoch from tallybook.reread_delay(n))::float8 from generate_series(0, 40) n"
    )
    waits = dict(await cursor.fetchall())
    assert [waits[n] for n in range(3)] == [0.5, 2.0, 8.0]
    assert 12 <= waits[3] <= 20
    assert all(450 <= waits[n] <= 750 for n in range(9, 41))
    assert len(set(waits.values())) == 41


async def test_histories_that_are_late_are_asked_for_until_they_come(portal, inbox, students, owner):
    """An unread write of ours and a portal whose histories lag: the hint stays, the edit is counted once."""
    await inbox.ask(students[0])
    await inbox.follow()
    await owner.execute("update tallybook.contacts set write_no = 1")
    await portal.post("settings", history_lag_ms=3000)
    await edit(portal, students[0], sj_credits="7", tallybook_sync="1 sj_credits=7")
    await inbox.event(students[0])
    followed = await inbox.follow()
    assert followed.again == 1
    cursor = await owner.execute("select attempts, last_error, dead_at from tallybook.inbox")
    assert await cursor.fetchone() == (1, None, None)
    await portal.post("settings", history_lag_ms=0)
    await inbox.all_due()
    assert (await inbox.follow()).again == 0
    assert await inbox.count() == 0


async def test_a_worker_that_was_killed_leaves_its_hints_to_others(mirror, inbox, students, owner):
    """Nothing is settled: when the lease is over the next reads it all; after three times, each alone."""
    await inbox.ask(*students[:5])
    for _ in range(3):
        lease = await claim_hints(mirror.db, [CONTACT])
        assert len(lease.hints) == 5
        await inbox.all_due()
    lease = await claim_hints(mirror.db, [CONTACT])
    assert len(lease.hints) == 5
    await inbox.all_due()
    for _ in range(5):
        assert (await inbox.follow()).absorbed == 1
    assert await inbox.count() == 0


async def test_types_do_not_wait_for_each_other(mirror, inbox, owner):
    """A flood of contacts: the one booking is claimed by who asks for bookings, and in time by everybody."""
    for n in range(300):
        await inbox.event(str(n))
    await inbox.event("77", mirrored=MirroredType.BOOKING)
    lease = await claim_hints(mirror.db, [MirroredType.BOOKING, MirroredType.MOCK_EXAM])
    assert (lease.mirrored, lease.hubspot_ids) == (MirroredType.BOOKING, ("77",))
    assert (await claim_hints(mirror.db, list(MirroredType))).mirrored is CONTACT


async def test_a_hint_about_somebody_stored_merges_and_loses_no_spend(mirror, portal, inbox, students, owner):
    """Both sides changed: the sum of the changes is stored."""
    await inbox.ask(students[0])
    await inbox.follow()
    await owner.execute(
        "insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor)"
        " select id, 'sj_credits', -1, 'correction', 'cli:test' from tallybook.contacts"
        " where hubspot_id = %s",
        (students[0],),
    )
    await edit(portal, students[0], sj_credits="15")
    await inbox.event(students[0])
    await inbox.follow()
    assert await balance(owner, students[0]) == 14


async def test_settling_with_a_foreign_token_does_nothing(mirror, inbox, students, owner):
    """Only who holds the lease decides."""
    await inbox.ask(students[0])
    await claim_hints(mirror.db, [CONTACT])
    cursor = await owner.execute("select id from tallybook.inbox")
    (hint_id,) = await cursor.fetchone()
    await owner.execute("select tallybook.settle_inbox(%s, %s, '[]', 0, true)", (uuid4(), [hint_id]))
    assert await inbox.count() == 1
    assert await make_contact(mirror.db)


async def test_whom_hubspot_forgot_for_privacy_is_forgotten_here(portal, inbox, students, owner):
    """The names go and the numbers stay; a hint about somebody who is still there forgets nobody."""
    await inbox.ask(*students[:2])
    await inbox.follow()
    answer = await portal.door.post(
        "/crm/v3/objects/contacts/gdpr-delete",
        json={"objectId": students[0]},
        headers={"authorization": "Bearer somebody"},
    )
    assert answer.is_success, answer.text
    for each in students[:2]:
        await inbox.event(each, what="privacyDeletion")
    await inbox.event("404404404", what="privacyDeletion")
    await inbox.follow()
    cursor = await owner.execute(
        "select email is null, student_id is null, erased_at is not null from tallybook.contacts"
        " order by erased_at nulls last"
    )
    assert await cursor.fetchall() == [(True, True, True), (False, False, False)]
    assert await inbox.count() == 0
