"""Balances and dates reach HubSpot, are read back, and lose nothing people type meanwhile."""

import asyncio
import json
from uuid import UUID

import pytest

from support.factories import Contact, balances, book, grant, make_local_contact
from support.push_world import CONTACT, MOCK_EXAM
from tallybook.hubspot.budget import CallKind
from tallybook.jobs.push_changes import push_until
from tallybook.usecases.pull_contacts import pull_contacts
from tallybook.usecases.push_changes import push_batch


async def push(world, *, times=1):
    """So many batches of contacts, each at once; the last one's result."""
    for _ in range(times):
        await world.due()
        result = await push_batch(world.mirror, CONTACT, linger=False)
    return result


async def shown(world, contact, name="sj_credits"):
    """What HubSpot shows of a contact."""
    hubspot_id = await world.hubspot_id("contacts", contact.id)
    return (await world.properties(CONTACT, hubspot_id)).get(name)


async def unread(world, contact):
    return await world.value("select crm_unread from tallybook.contacts where id = %s", contact.id)


async def settled(world, contact, number, *, rounds=6):
    """Pushes until nothing waits; both sides then show this number, and the ledger explains it."""
    for _ in range(rounds):
        await world.due()
        await push_batch(world.mirror, CONTACT, linger=False)
        if not await world.outbox("contact"):
            break
    assert await world.outbox("contact") == {}
    assert (await balances(world.db, contact))["sj_credits"] == number
    assert await shown(world, contact) == str(number)
    assert not await unread(world, contact)


async def test_a_grant_is_written_with_a_stamp_and_read_back(world):
    contact = await world.student(credits={"sj_credits": 3})
    await grant(world.db, contact, "sj_credits", 2)
    before = await world.calls()

    result = await push(world)

    assert (result.claimed, result.written) == (1, 1)
    assert await shown(world, contact) == "5"
    assert await shown(world, contact, "tallybook_sync") == "1 sj_credits=5"
    assert await shown(world, contact, "tallybook_id") == str(contact.id)
    assert await world.outbox("contact") == {}
    assert not await unread(world, contact)
    calls = await world.calls()
    assert calls["batch_update"] - before["batch_update"] == 1
    assert calls["batch_read"] - before["batch_read"] == 1


async def test_many_changes_of_one_contact_are_one_write(world):
    contact = await world.student(credits={"sj_credits": 3})
    for _ in range(5):
        await grant(world.db, contact, "sj_credits", 1)

    await push(world)

    record = await world.record(CONTACT, contact.hubspot_id)
    assert [entry["value"] for entry in record["history"]["sj_credits"]] == ["8", "3"]


async def test_a_contact_made_here_is_created_without_numbers_and_then_told_them(world):
    contact = await make_local_contact(world.db, student_id="1900100", credits={"sj_credits": 4})
    exam = await world.exam()
    booking = await book(world.db, contact, exam)

    first = await push(world)
    assert first.written == 1
    assert await shown(world, contact) in {None, "0"}
    await settled(world, contact, 3)

    record = await world.record(CONTACT, await world.hubspot_id("contacts", contact.id))
    assert record["history"]["sj_credits"][0]["value"] == "3"
    assert (
        await world.value(
            "select count(*) from tallybook.credit_entries where contact_id = %s and reason = 'crm_link'",
            contact.id,
        )
        == 0
    )
    assert booking["booking_id"]


async def test_a_person_made_on_both_sides_is_one_contact_whose_credits_add_up(world):
    contact = await make_local_contact(world.db, student_id="1900101", credits={"sj_credits": 4})
    there = await world.create("contacts", email=contact.email, student_id="1900101", sj_credits="2")

    await push(world)

    assert await world.hubspot_id("contacts", contact.id) == there
    await settled(world, contact, 6)


async def test_an_edit_between_our_values_and_our_write_survives(world):
    """HubSpot shows 3; we write 5 for 3+2 while somebody types 10: the sum of both is 12."""
    contact = await world.student(credits={"sj_credits": 3})
    await grant(world.db, contact, "sj_credits", 2)
    await world.edit(CONTACT, contact.hubspot_id, sj_credits="10")

    await settled(world, contact, 12)


async def test_a_person_typing_exactly_the_value_we_push_has_typed_it(world):
    """3 here and there; we grant 2, and before our 5 arrives somebody types 5 too: that is 2 more."""
    contact = await world.student(credits={"sj_credits": 3})
    await grant(world.db, contact, "sj_credits", 2)
    await world.edit(CONTACT, contact.hubspot_id, sj_credits="5")

    await settled(world, contact, 7)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 502, "apply_first": True},
        {"status": 502},
        {"cut": True, "apply_first": True},
        {"cut": True},
        {"late_apply_ms": 400, "status": 504},
    ],
    ids=["applied-but-502", "502", "applied-but-cut", "cut", "late"],
)
async def test_a_write_of_unknown_outcome_is_read_before_the_next_and_counted_once(world, fault):
    contact = await world.student(credits={"sj_credits": 3})
    await grant(world.db, contact, "sj_credits", 2)
    await world.fault(world.batch(CONTACT, "update"), **fault)

    first = await push(world)

    assert first.paused == "unavailable"
    assert await unread(world, contact)
    await grant(world.db, contact, "sj_credits", 1)
    await world.edit(CONTACT, contact.hubspot_id, user="bea", cs_credits="7")
    await asyncio.sleep(0.6)
    await world.resume("contact")
    await settled(world, contact, 6)
    assert (await balances(world.db, contact))["cs_credits"] == 7


async def test_a_write_that_lands_after_newer_ones_is_recognised_and_corrected(world):
    contact = await world.student(credits={"sj_credits": 3})
    await grant(world.db, contact, "sj_credits", 2)
    await world.fault(world.batch(CONTACT, "update"), late_apply_ms=1_500, status=504)
    await push(world)
    await world.resume("contact")
    await grant(world.db, contact, "sj_credits", 4)
    await settled(world, contact, 9)

    async def has_landed():
        return await shown(world, contact) == "5"

    await world.until(has_landed)

    await pull_contacts(world.mirror, [contact.hubspot_id], kind=CallKind.PULL)
    assert (await balances(world.db, contact))["sj_credits"] == 9
    await settled(world, contact, 9)


async def test_a_worker_killed_between_claim_and_write_leaves_nothing_behind(world):
    contact = await world.student(credits={"sj_credits": 3})
    await grant(world.db, contact, "sj_credits", 2)
    claim = await world.claim(CONTACT)
    assert [item.action for item in await claim.prepare(claim.ids)] == ["update"]
    assert (await push(world)).claimed == 0, "the lease still holds"

    await world.lose_leases()
    await settled(world, contact, 5)


async def test_a_worker_that_lost_its_lease_changes_nothing_when_it_comes_back(world):
    """The first one's write lands last and its confirmation comes too late: the second one's stands."""
    contact = await world.student(credits={"sj_credits": 3})
    await grant(world.db, contact, "sj_credits", 2)
    await world.fault(world.batch(CONTACT, "update"), delay_ms=700)
    first = asyncio.create_task(push(world))

    async def has_written():
        return await shown(world, contact) == "5"

    await world.until(has_written)
    await world.lose_leases()
    await grant(world.db, contact, "sj_credits", 1)
    second = await push(world)
    assert second.claimed == 1
    await first

    await settled(world, contact, 6)


async def test_a_change_while_the_write_is_on_its_way_is_written_afterwards(world):
    contact = await world.student(credits={"sj_credits": 3})
    await grant(world.db, contact, "sj_credits", 2)
    await world.fault(world.batch(CONTACT, "update"), delay_ms=300)
    pushing = asyncio.create_task(push(world))

    async def has_written():
        return await shown(world, contact) == "5"

    await world.until(has_written)
    await grant(world.db, contact, "sj_credits", 1)
    await pushing
    assert len(await world.outbox("contact")) == 1

    await settled(world, contact, 6)


async def test_late_histories_are_read_again_a_little_later(world):
    contact = await world.student(credits={"sj_credits": 3})
    await grant(world.db, contact, "sj_credits", 2)
    await world.portal.post("settings", history_lag_ms=800)

    result = await push(world)

    assert result.written == 1
    assert await unread(world, contact)
    ((attempts, words, dead),) = (await world.outbox("contact")).values()
    assert (attempts, dead) == (1, False)
    assert "histories" in words
    await asyncio.sleep(1)
    await settled(world, contact, 5)


async def test_a_date_set_here_is_written_and_agreed_on(world):
    contact = await world.student(credits={"sj_credits": 3})
    await world.rows("update tallybook.contacts set ndecc_exam_on = '2027-03-01' where id = %s", contact.id)
    await world.rows("select tallybook.note_changes(array['contact'], array[%s::uuid])", contact.id)

    await push(world)

    assert await shown(world, contact, "ndecc_exam_date") == "2027-03-01"
    ((base, sent),) = await world.rows(
        "select crm_base ->> 'ndecc_exam_date', crm_sent from tallybook.contacts where id = %s", contact.id
    )
    assert (base, sent) == ("2027-03-01", {})
    assert await world.outbox("contact") == {}


async def test_what_was_sent_is_remembered_once_each_newest_last_until_it_is_confirmed(world):
    sent = {}
    for text in ("a", "b", "a", None):
        sent = await world.value(
            "select tallybook.with_sent(%s::jsonb, %s::jsonb)", json.dumps(sent), json.dumps({"x": text})
        )
    assert sent == {"x": ["b", "a", None]}
    for text, left in (("b", {"x": ["a", None]}), ("z", {"x": ["b", "a", None]})):
        assert (
            await world.value(
                "select tallybook.without_sent(%s::jsonb, %s::jsonb)",
                json.dumps(sent),
                json.dumps({"x": text}),
            )
            == left
        )
    assert await world.value("""select tallybook.without_sent('{"x": ["a"]}', '{"x": "a"}')""") == {}


async def test_nothing_is_written_about_a_contact_that_was_only_noted(world):
    contact = await world.student(credits={"sj_credits": 3})
    await world.rows("select tallybook.note_changes(array['contact'], array[%s::uuid])", contact.id)
    before = await world.calls()

    await push(world)

    assert await world.outbox("contact") == {}
    assert (await world.calls())["batch_update"] == before["batch_update"]


async def test_a_frozen_balance_is_not_written_and_the_others_are(world):
    contact = await world.student(credits={"sj_credits": 3})
    await world.rows(
        "select tallybook.open_conflict('contact', %s, 'sj_credits', 'gap', '5', '1', '{}', true)", contact.id
    )
    await grant(world.db, contact, "sj_credits", 2)
    await grant(world.db, contact, "cs_credits", 1)

    await push(world)

    assert await shown(world, contact) == "3"
    assert await shown(world, contact, "cs_credits") == "1"
    assert await world.outbox("contact") == {}


async def test_a_hundred_contacts_take_three_calls(world):
    contacts = await world.students(100, credits={"sj_credits": 3})
    for contact in contacts:
        await grant(world.db, contact, "sj_credits", 1)
    await push_batch(world.mirror, CONTACT)
    before = await world.portal.stats()

    await push(world)
    assert await world.outbox("contact") == {}
    after = await world.portal.stats()
    assert after["total"] - before["total"] <= 3


async def test_somebody_who_changes_it_back_each_time_is_left_alone_and_named(world):
    """A workflow writes nonsense over the number again and again: after ten rounds people are told who."""
    contact = await world.student(credits={"sj_credits": 3})
    writes = 0
    for _ in range(14):
        await world.edit(CONTACT, contact.hubspot_id, user="robot", sj_credits="n/a")
        await pull_contacts(world.mirror, [contact.hubspot_id], kind=CallKind.PULL)
        await world.due()
        writes += (await push_batch(world.mirror, CONTACT, linger=False)).written

    assert 10 <= writes <= 11
    ((details, cleared),) = await world.rows(
        "select details, cleared_at from tallybook.sync_alerts where kind = 'contact_fight' and subject = %s",
        str(contact.id),
    )
    assert details["source"].startswith("CRM_UI")
    assert details["properties"] == ["sj_credits"]
    assert cleared is None
    assert (await balances(world.db, contact))["sj_credits"] == 3


async def test_cron_brings_a_new_person_and_the_booking_over_in_one_run(world):
    contact = await make_local_contact(world.db, student_id="1900102", credits={"sj_credits": 2})
    exam = await world.exam(mirrored=False)
    booking = await book(world.db, contact, exam)

    result = await push_until(world.mirror, max_s=30)

    assert result.done
    assert await world.outbox() == {}
    assert await shown(world, contact) == "1"
    assert await world.hubspot_id("bookings", booking["id"]) is not None


async def test_a_booking_that_waits_for_its_session_is_not_called_done(world):
    """HubSpot will not have the session: what cannot follow is counted, and done once it could."""
    exam = await world.exam(mirrored=False)
    (student,) = await world.students(1, credits={"sj_credits": 1})
    booking = await book(world.db, student, exam)
    await world.rows("update tallybook.outbox set dirty_since = now() - interval '1 day'")
    await world.portal_property(MOCK_EXAM, "capacity", exists=False)

    stuck = await push_until(world.mirror, max_s=20)

    assert await world.hubspot_id("bookings", booking["id"]) is None
    assert (stuck.done, stuck.counts["waiting"]) == (False, len(await world.outbox()))
    assert set(await world.outbox()) == {exam.id, UUID(booking["id"])}
    await world.portal_property(MOCK_EXAM, "capacity", exists=True)
    await world.resume("mock_exam")
    finished = await push_until(world.mirror, max_s=20)
    assert (finished.done, finished.counts["waiting"], await world.outbox()) == (True, 0, {})
    assert await world.hubspot_id("bookings", booking["id"]) is not None


async def test_what_is_never_sent_does_not_put_a_contact_into_the_outbox(world):
    """A number of a retired type, which nobody reads back, and an e-mail somebody else has now."""
    student = await world.student(credits={"sj_credits": 3, "cs_credits": 2})
    await world.rows("update tallybook.credit_types set retired_at = now() where name = 'cs_credits'")
    await world.rows("update tallybook.contacts set email = null where id = %s", student.id)
    await world.rows(
        "insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor)"
        " values (%s, 'cs_credits', -1, 'manual', 'staff:1')",
        student.id,
    )
    await world.forget_outbox()
    await world.edit(CONTACT, student.hubspot_id, firstname="Augusta")

    await pull_contacts(world.mirror, [student.hubspot_id], kind=CallKind.PULL)

    assert await world.outbox() == {}


async def test_a_number_nobody_could_read_when_first_met_does_not_keep_the_others_back(world):
    """Nor is the contact read again and again: the number waits for a person, the rest is told."""
    hubspot_id = await world.create(
        "contacts", email="odd@example.com", student_id="1899999", sj_credits="4", cs_credits="3.5"
    )
    await pull_contacts(world.mirror, [hubspot_id], kind=CallKind.PULL)
    contact_id = await world.value("select id from tallybook.contacts where hubspot_id = %s", hubspot_id)
    # As the import of a live booking leaves it that had cost one of these.
    await world.rows(
        "insert into tallybook.credit_balances (contact_id, credit_type) values (%s, 'cs_credits')",
        contact_id,
    )
    await grant(world.db, Contact(contact_id, hubspot_id, "1899999", "odd@example.com"), "sj_credits", 2)

    await push_until(world.mirror, max_s=8)

    assert await world.outbox() == {}
    shown = await world.properties(CONTACT, hubspot_id)
    assert (shown["sj_credits"], shown["cs_credits"]) == ("6", "3.5")
