"""People who become one record in HubSpot, leave it, or have to be forgotten, as the simulator plays it."""

import asyncio
import json
from contextlib import suppress

import pytest

from support.factories import Contact, balances, book, cancel, grant, make_mock_exam
from tallybook.domain.errors import ContactNotFound, TallybookError
from tallybook.hubspot.budget import CallKind
from tallybook.usecases.erase_contact import erase_contact
from tallybook.usecases.grant_credits import find_contact
from tallybook.usecases.pull_contacts import pull_contacts
from tallybook.usecases.resolve_conflict import Choice, resolve_conflict


class People:
    """Contacts of the portal and ours, and what happens to them there."""

    def __init__(self, portal, mirror, owner):
        self.portal, self.mirror, self.owner = portal, mirror, owner

    async def meet(self, name, **properties):
        """A student who is in both."""
        given = {"email": f"{name}@example.com", "student_id": name.upper() + "1"} | properties
        answer = await self.portal.post("edits", object_type="contacts", properties=given)
        await self.pull(answer["id"])
        found = await find_contact(self.mirror.db, answer["id"])
        return Contact(found, answer["id"], given["student_id"], given["email"])

    async def pull(self, *hubspot_ids, **options):
        return await pull_contacts(self.mirror, hubspot_ids, kind=CallKind.PULL, **options)

    async def edit(self, contact, **change):
        return await self.portal.post("edits", object_type="contacts", id=contact.hubspot_id, **change)

    async def merge(self, primary, other):
        """The id of the record both have become."""
        return (await self.edit(primary, properties={}, merge=other.hubspot_id))["id"]

    async def fetch(self, query, *params):
        return await (await self.owner.execute(query, params)).fetchall()

    async def conflicts(self, contact):
        return await self.fetch(
            "select kind, ours, theirs from tallybook.sync_conflicts"
            " where object_id = %s and resolved_at is null order by kind",
            contact.id,
        )

    async def resolve(self, contact, choice, value=None):
        (((conflict_id,),)) = await self.fetch(
            "select id from tallybook.sync_conflicts where object_id = %s and resolved_at is null", contact.id
        )
        return await resolve_conflict(
            self.mirror.db,
            conflict_id=conflict_id,
            choice=choice,
            value=value,
            reason="for a test",
            actor="cli:test",
        )

    async def logs_in_as(self, student_id, email):
        """Whom the pair opens the door to, and what is said else."""
        ((contact_id, refusal),) = await self.fetch(
            "select contact_id, refusal from tallybook.identify(null, null, %s, %s)", student_id, email
        )
        return contact_id or refusal


@pytest.fixture
def people(portal, mirror, owner):
    return People(portal, mirror, owner)


@pytest.mark.parametrize("asked_by", ["new", "primary", "other", "all"])
async def test_two_contacts_become_one_with_both_numbers(people, db, asked_by):
    """Whichever id is read: ours for the primary goes on under the new id, with the credits of both."""
    ada = await people.meet("ada", sj_credits="3", cs_credits="1")
    eve = await people.meet("eve", sj_credits="2", shared_mock_credits="4")
    await grant(db, ada, "sj_credits", 1)
    new_id = await people.merge(ada, eve)
    ids = {"new": [new_id], "primary": [ada.hubspot_id], "other": [eve.hubspot_id]}
    for _ in range(2):
        await people.pull(*ids.get(asked_by, [eve.hubspot_id, ada.hubspot_id, new_id]))

    assert await balances(db, ada) | {"sj_credits": 6, "cs_credits": 1, "shared_mock_credits": 4} == (
        await balances(db, ada)
    )
    assert set((await balances(db, eve)).values()) == {0}
    for ref in (new_id, ada.hubspot_id, eve.hubspot_id, str(eve.id), "email:eve@example.com", "student:EVE1"):
        assert await find_contact(db, ref) == ada.id, ref
    for pair in (("ADA1", "ada@example.com"), ("EVE1", "eve@example.com"), ("EVE1", "ada@example.com")):
        assert await people.logs_in_as(*pair) == ada.id
    assert await people.conflicts(ada) == [
        ("merged", "shared_mock_credits 0, sj_credits 4", "shared_mock_credits 4, sj_credits 2")
    ]
    entries = await people.fetch(
        "select c.student_id, e.delta, e.reason from tallybook.credit_entries e"
        " join tallybook.contacts c on c.id = e.contact_id"
        " where e.reason in ('merge_in', 'merge_out') order by e.id"
    )
    assert entries == [
        ("EVE1", -4, "merge_out"),
        ("ADA1", 4, "merge_in"),
        ("EVE1", -2, "merge_out"),
        ("ADA1", 2, "merge_in"),
    ]
    assert (await people.fetch("select tallybook.dirty_balances(%s)", ada.id))[0][0]["sj_credits"] == 6


async def test_an_edit_just_before_the_merge_counts(people, db):
    """5 typed over 3 on the primary, then merged, then read for the first time."""
    ada, eve = await people.meet("ada", sj_credits="3"), await people.meet("eve", sj_credits="2")
    await people.edit(ada, properties={"sj_credits": "5"})
    await people.pull(await people.merge(ada, eve))
    assert (await balances(db, ada))["sj_credits"] == 7


async def test_a_number_the_primary_never_had_moves_once(people, db):
    """HubSpot fills an empty property from the other record; ours moves the credits: not both."""
    ada, eve = await people.meet("ada"), await people.meet("eve", sj_credits="2")
    new_id = await people.merge(ada, eve)
    await people.pull(new_id)
    assert (await balances(db, ada))["sj_credits"] == 2


async def test_the_other_of_two_may_be_a_stranger(people, db):
    """Nobody here knew the record that went: ours only has another id."""
    ada = await people.meet("ada", sj_credits="3")
    lead = (await people.portal.post("edits", object_type="contacts", properties={"email": "x@example.com"}))[
        "id"
    ]
    new_id = (await people.edit(ada, properties={}, merge=lead))["id"]
    await people.pull(ada.hubspot_id)
    assert await find_contact(db, new_id) == await find_contact(db, ada.hubspot_id) == ada.id
    assert (await balances(db, ada))["sj_credits"] == 3
    assert await people.conflicts(ada) == []


async def test_a_stranger_may_be_the_one_that_stays(people, db):
    """A student is merged into a record without credits, which HubSpot fills: ours counts them once."""
    ada = await people.meet("ada", sj_credits="3")
    lead = (await people.portal.post("edits", object_type="contacts", properties={"email": "x@example.com"}))[
        "id"
    ]
    answer = await people.portal.post(
        "edits", object_type="contacts", id=lead, properties={}, merge=ada.hubspot_id
    )
    await people.pull(answer["id"])
    assert await find_contact(db, answer["id"]) == ada.id
    assert (await balances(db, ada))["sj_credits"] == 3


async def test_bookings_and_holds_move_and_clashes_are_listed(people, db, owner):
    """A clashing booking keeps its seat, left out of the rules as an imported one would be."""
    ada, eve = (
        await people.meet("ada", sj_credits="3"),
        await people.meet("eve", sj_credits="3", cs_credits="2"),
    )
    exam, other = await make_mock_exam(db), await make_mock_exam(db, days=9)
    await book(db, ada, exam)
    clashing, moved = await book(db, eve, exam), await book(db, eve, other)
    gone = await make_mock_exam(db, days=12)
    for contact in (ada, eve):
        await cancel(db, contact, await book(db, contact, gone))
    await owner.execute(
        "insert into tallybook.credit_holds (contact_id, credit_type, credits, actor, expires_at)"
        " values (%s, 'cs_credits', 2, 'key:test', clock_timestamp() + interval '1 hour')",
        (eve.id,),
    )
    await owner.execute(
        "update tallybook.credit_balances set held = 2 where contact_id = %s and credit_type = 'cs_credits'",
        (eve.id,),
    )
    await people.pull(await people.merge(ada, eve))

    assert (await balances(db, ada)) | {"sj_credits": 3, "cs_credits": 2} == await balances(db, ada)
    rows = await people.fetch(
        "select id::text, grandfathered from tallybook.bookings where contact_id = %s and status = 'Active'",
        ada.id,
    )
    assert dict(rows) | {clashing["id"]: True, moved["id"]: False} == dict(rows)
    assert len(rows) == 3
    assert await people.fetch(
        "select contact_id, credits from tallybook.credit_holds where closed_at is null"
    ) == [(ada.id, 2)]
    ((details,),) = await people.fetch("select details from tallybook.sync_conflicts where kind = 'merged'")
    assert details["clashing_bookings"] == [clashing["id"]]
    # The credit comes back to whoever has the booking now.
    await cancel(db, ada, clashing)
    assert (await balances(db, ada))["sj_credits"] == 4


async def test_the_addition_can_be_undone(people, db):
    """The two records were one person's credits entered twice: staff say so, and 2 of 5 go again."""
    ada, eve = await people.meet("ada", sj_credits="3"), await people.meet("eve", sj_credits="2")
    await people.pull(await people.merge(ada, eve))
    await people.resolve(ada, Choice.THEIRS)
    assert (await balances(db, ada))["sj_credits"] == 3
    assert await people.conflicts(ada) == []


async def test_the_sum_can_be_kept(people, db):
    """Nothing changes but that somebody has looked."""
    ada, eve = await people.meet("ada", sj_credits="3"), await people.meet("eve", sj_credits="2")
    await people.pull(await people.merge(ada, eve))
    await people.resolve(ada, Choice.OURS)
    assert (await balances(db, ada))["sj_credits"] == 5


async def test_the_losers_sessions_end(people, db):
    """A token of the contact that went is nobody's."""
    ada, eve = await people.meet("ada"), await people.meet("eve")
    await people.pull(await people.merge(ada, eve))
    ((refusal,),) = await people.fetch("select refusal from tallybook.identify(%s, 1, null, null)", eve.id)
    assert refusal == "UNAUTHENTICATED"


async def test_a_merged_record_can_be_merged_again(people, db):
    """Three become one in two steps, read only at the end."""
    ada, eve, bob = [await people.meet(name, sj_credits="2") for name in ("ada", "eve", "bob")]
    first = await people.merge(ada, eve)
    answer = await people.portal.post(
        "edits", object_type="contacts", id=first, properties={}, merge=bob.hubspot_id
    )
    await people.pull(answer["id"])
    assert (await balances(db, ada))["sj_credits"] == 6
    for contact in (ada, eve, bob):
        assert await find_contact(db, contact.hubspot_id) == ada.id


async def test_an_archived_contact_is_read_from_the_bin(people, db):
    """Not shown is not deleted: sign-in is refused, nothing else changes, restoring reverses it."""
    ada = await people.meet("ada", sj_credits="3")
    await people.edit(ada, properties={}, archived=True)
    pulled = await people.pull(ada.hubspot_id)
    assert (pulled.missing, await people.logs_in_as("ADA1", "ada@example.com")) == ((), "STUDENT_NOT_FOUND")
    assert await people.conflicts(ada) == []
    await people.edit(ada, properties={}, archived=False)
    await people.pull(ada.hubspot_id)
    assert await people.logs_in_as("ADA1", "ada@example.com") == ada.id
    assert (await balances(db, ada))["sj_credits"] == 3


async def test_a_deleted_contact_with_credits_is_a_persons_decision(people, db):
    """Nothing is freed by itself; made again, HubSpot is told everything."""
    ada, eve = await people.meet("ada", sj_credits="3"), await people.meet("eve")
    for contact in (ada, eve):
        await people.edit(contact, properties={}, erase=True)
    pulled = await people.pull(ada.hubspot_id, eve.hubspot_id, "999999999")
    assert set(pulled.missing) == {ada.hubspot_id, eve.hubspot_id, "999999999"}
    assert await people.logs_in_as("ADA1", "ada@example.com") == "STUDENT_NOT_FOUND"
    assert await people.conflicts(ada) == [("deleted", "sj_credits 3", None)]
    assert await people.conflicts(eve) == []
    await people.resolve(ada, Choice.OURS)
    assert await people.logs_in_as("ADA1", "ada@example.com") == ada.id
    ((numbers, texts),) = await people.fetch(
        "select tallybook.dirty_balances(%s), tallybook.dirty_texts(%s)", ada.id, ada.id
    )
    assert (numbers, texts["student_id"]) == ({"sj_credits": 3}, "ADA1")


async def test_a_deleted_contact_keeps_the_seat_until_a_person_decides(people, db):
    """The booking of somebody who is gone from HubSpot stays as it is; dismissing changes nothing."""
    ada = await people.meet("ada", sj_credits="1")
    booking = await book(db, ada, await make_mock_exam(db))
    await people.edit(ada, properties={}, erase=True)
    await people.pull(ada.hubspot_id)
    assert await people.conflicts(ada) == [("deleted", "live bookings 1", None)]
    await people.resolve(ada, Choice.DISMISS)
    assert await people.fetch("select status from tallybook.bookings where id = %s", booking["id"]) == [
        ("Active",)
    ]
    assert await people.conflicts(ada) == []


async def test_a_merge_while_both_book_and_cancel_loses_nothing(people, db):
    """Eight pairs become one while all sixteen book and cancel: credits and seats add up afterwards."""
    exams = [await make_mock_exam(db, days=5 + n, capacity=40) for n in range(3)]
    pairs = [
        (await people.meet(f"p{n}", sj_credits="5"), await people.meet(f"o{n}", sj_credits="5"))
        for n in range(8)
    ]

    async def busy(contact):
        for exam in exams:
            with suppress(TallybookError):
                booking = await book(db, contact, exam)
                if exam is exams[0]:
                    await cancel(db, contact, booking)

    async def become_one(primary, other):
        await people.pull(await people.merge(primary, other))

    await asyncio.gather(
        *(busy(each) for pair in pairs for each in pair), *(become_one(*each) for each in pairs)
    )
    for primary, other in pairs:
        ((live,),) = await people.fetch(
            "select count(*) from tallybook.bookings where contact_id = %s and status <> 'Cancelled'",
            primary.id,
        )
        assert (await balances(db, primary))["sj_credits"] == 10 - live
        assert await find_contact(db, str(other.id)) == primary.id


async def test_a_person_deleted_for_privacy_is_forgotten_here_too(people, db, owner):
    """The hint says so, the record is gone: every trace of the person goes, every number stays."""
    ada = await people.meet("ada", sj_credits="3", firstname="Augusta")
    booking = await book(db, ada, await make_mock_exam(db), key="k1")
    await grant(db, ada, "sj_credits", 1)
    await people.edit(ada, properties={}, erase=True)
    await owner.execute(
        "insert into tallybook.inbox (object_type, hubspot_id, subscription_type)"
        " values ('contact', %s, 'contact.privacyDeletion')",
        (ada.hubspot_id,),
    )
    await people.pull(ada.hubspot_id)
    await expect_forgotten(people, ada, "Augusta")
    assert (await balances(db, ada))["sj_credits"] == 3
    ((text,),) = await people.fetch("select booking_id from tallybook.bookings where id = %s", booking["id"])
    assert text == booking["booking_id"].replace("ADA1", str(ada.id)[:8])


async def test_erasing_is_done_once_and_reaches_merged_contacts(people, db):
    """Two records of one person, both forgotten; a late answer of HubSpot's fills nothing in again."""
    ada, eve = await people.meet("ada", sj_credits="3"), await people.meet("eve", firstname="Evangeline")
    await book(db, ada, await make_mock_exam(db))
    await people.pull(await people.merge(ada, eve))
    told = [
        await erase_contact(db, contact=str(ada.id), reason="asked for it", actor="cli:test")
        for _ in range(2)
    ]
    assert [each.outcome for each in told] == ["ok", "already"]
    assert json.loads(told[0].data)["live_bookings"] == 1
    await expect_forgotten(people, ada, "Evangeline", "eve@")
    hubspot_id = (await people.fetch("select hubspot_id from tallybook.contacts where id = %s", ada.id))[0][0]
    await people.pull(hubspot_id)
    await expect_forgotten(people, ada, "Evangeline", "eve@")


async def test_nobody_can_be_forgotten_who_is_not_there(db):
    """An unknown contact is an error, not a success."""
    with pytest.raises(ContactNotFound):
        await erase_contact(db, contact="4711", reason="asked for it", actor="cli:test")


async def expect_forgotten(people, contact, *words):
    """Nothing in the database names the person any more."""
    tables = await people.fetch(
        "select relname from pg_class where relnamespace = 'tallybook'::regnamespace and relkind = 'r'"
    )
    for (table,) in tables:
        rows = await people.fetch(f"select t::text from tallybook.{table} t")
        for word in (contact.email, contact.student_id, *words):
            assert [row for (row,) in rows if word in row] == [], (table, word)
