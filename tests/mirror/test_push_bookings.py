"""Bookings and sessions reach HubSpot with both associations, once each, whatever happens on the way."""

import asyncio
from uuid import UUID

import pytest

from support.factories import book, cancel, make_local_contact, move
from support.push_world import BOOKING, MOCK_EXAM
from tallybook.domain.errors import SetupError
from tallybook.jobs.push_changes import push_until, run_push
from tallybook.usecases.push_changes import push_batch
from tallybook.usecases.reconcile_mirror import reconcile_mirror
from tallybook.usecases.resolve_conflict import Choice, resolve_conflict


async def booked(world, *, exam=None):
    """A student with a booking that HubSpot has not heard of."""
    contact = await world.student(credits={"sj_credits": 3})
    exam = exam or await world.exam(capacity=200)
    return contact, exam, await book(world.db, contact, exam)


async def push(world, lane):
    return await push_batch(world.mirror, lane, linger=False)


async def shown(world, booking):
    """HubSpot's record of a booking."""
    return await world.record(BOOKING, await world.hubspot_id("bookings", booking["id"]))


def linked(record):
    """The ids a record is associated with: {type: ids}."""
    return {name: [each["id"] for each in found] for name, found in record["associations"].items() if found}


async def both_of(world, contact, exam):
    return {"contacts": [contact.hubspot_id], "mock_exams": [await world.hubspot_id("mock_exams", exam.id)]}


async def test_a_new_booking_reaches_hubspot_with_both_associations_in_one_call(world):
    contact, exam, booking = await booked(world)
    before = await world.calls()

    result = await push(world, BOOKING)

    assert (result.claimed, result.written, result.dead) == (1, 1, 0)
    record = await shown(world, booking)
    assert linked(record) == await both_of(world, contact, exam)
    properties = record["properties"]
    assert properties["booking_id"] == booking["booking_id"]
    assert properties["is_active"] == "Active"
    assert properties["tallybook_id"] == booking["id"]
    assert properties["email"] == contact.email
    assert properties["name"] == "Ada Lovelace"
    assert properties["student_id"] == contact.student_id
    assert properties["token_used"] == "Situational Judgment Token"
    assert await world.outbox("booking") == {}
    calls = await world.calls()
    assert calls["batch_create"] - before["batch_create"] == 1
    assert calls["batch_upsert"] == before["batch_upsert"]


async def test_a_cancellation_is_an_update_of_what_changed(world):
    contact, _, booking = await booked(world)
    await push(world, BOOKING)
    await cancel(world.db, contact, booking)

    await push(world, BOOKING)

    record = await shown(world, booking)
    assert record["properties"]["is_active"] == "Cancelled"
    assert record["properties"]["token_refunded"] == "true"
    assert len(record["history"]["booking_id"]) == 1
    assert await world.outbox("booking") == {}


async def test_a_booking_waits_for_the_ids_of_its_contact_and_session_without_using_up_attempts(world):
    contact = await make_local_contact(world.db, student_id="1900001")
    exam = await world.exam(mirrored=False)
    booking = await book(world.db, contact, exam, override="for a test")
    await world.rows("delete from tallybook.outbox where object_type = 'contact'")

    for _ in range(3):
        await world.due()
        await push(world, BOOKING)
        assert list((await world.outbox("booking")).values()) == [(0, None, False)]

    contact_id = await world.create("contacts", email=contact.email)
    await world.rows("update tallybook.contacts set hubspot_id = %s where id = %s", contact_id, contact.id)
    await push(world, MOCK_EXAM)
    # The session has its id, which wakes the booking: it is not made due by hand here.
    result = await push(world, BOOKING)
    assert result.written == 1
    assert linked(await shown(world, booking)) == {
        "contacts": [contact_id],
        "mock_exams": [await world.hubspot_id("mock_exams", exam.id)],
    }


async def test_a_session_is_made_with_its_name_and_its_seats_follow_without_reading(world):
    exam = await world.exam(mirrored=False, capacity=50)
    await booked(world, exam=exam)
    another = await world.student(credits={"sj_credits": 1})
    before = await world.calls()

    await push(world, MOCK_EXAM)
    await book(world.db, another, exam)
    await push(world, MOCK_EXAM)

    properties = await world.properties(MOCK_EXAM, await world.hubspot_id("mock_exams", exam.id))
    assert properties["mock_exam_name"] == f"Situational Judgment-Mississauga-{exam.exam_on}"
    assert properties["total_bookings"] == "2"
    assert properties["capacity"] == "50"
    assert properties["tallybook_id"] == str(exam.id)
    calls = await world.calls()
    assert calls["batch_read"] == before["batch_read"]
    assert await world.outbox("mock_exam") == {}


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 502, "apply_first": True},
        {"cut": True, "apply_first": True},
        {"status": 503},
        {"cut": True},
        {"status": 200, "body": {"results": "none"}, "apply_first": True},
    ],
    ids=["applied-but-502", "applied-but-cut", "503", "cut", "unreadable"],
)
async def test_a_creation_of_unknown_outcome_makes_one_record_with_both_associations(world, fault):
    contact, exam, booking = await booked(world)
    await world.fault(world.batch(BOOKING, "create"), **fault)

    first = await push(world, BOOKING)

    assert first.paused == "unavailable"
    assert list((await world.outbox("booking")).values()) == [(0, None, False)]
    assert (await push(world, BOOKING)).claimed == 0, "a paused lane sends nothing"
    await world.rows("update tallybook.sync_lanes set resume_at = clock_timestamp() where lane = 'booking'")
    again = await push(world, BOOKING)
    assert (again.written, again.paused) == (1, None)
    assert list(await world.records(BOOKING)) == [booking["id"]]
    assert linked(await shown(world, booking)) == await both_of(world, contact, exam)
    assert await world.outbox("booking") == {}


async def test_a_worker_killed_between_claim_and_answer_leaves_one_record(world):
    _, _, booking = await booked(world)
    await world.fault(world.batch(BOOKING, "create"), apply_first=True, delay_ms=60_000)
    killed = asyncio.create_task(push(world, BOOKING))
    await world.until(lambda: world.records(BOOKING))
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    assert (await push(world, BOOKING)).claimed == 0, "the lease still holds"

    await world.rows(
        "update tallybook.outbox set leased_until = clock_timestamp() where lease_token is not null"
    )
    assert (await push(world, BOOKING)).written == 1

    assert list(await world.records(BOOKING)) == [booking["id"]]
    assert await world.hubspot_id("bookings", booking["id"]) is not None


async def test_a_moved_booking_is_associated_with_its_new_session_only(world):
    contact, _, booking = await booked(world)
    await push(world, BOOKING)
    elsewhere = await world.exam(days=9)
    await move(world.db, contact, booking, elsewhere)

    await push(world, BOOKING)

    assert linked(await shown(world, booking)) == await both_of(world, contact, elsewhere)
    assert await world.outbox("booking") == {}


async def test_a_booking_moved_to_a_session_hubspot_has_not_got_waits_for_it(world):
    """It was dropped as clean, and HubSpot showed it in the session it had left, for ever."""
    contact, _, booking = await booked(world)
    await push(world, BOOKING)
    elsewhere = await world.exam(mirrored=False, days=9)
    await move(world.db, contact, booking, elsewhere)
    await push(world, BOOKING)
    assert list(await world.outbox("booking")) == [UUID(booking["id"])]
    await push(world, MOCK_EXAM)
    await world.due()
    await push(world, BOOKING)
    assert linked(await shown(world, booking)) == await both_of(world, contact, elsewhere)
    assert await world.outbox("booking") == {}


async def test_a_booking_moved_after_a_write_of_unknown_outcome_is_associated_with_its_last_session_only(
    world,
):
    """Created, moved, moved again, with the answers lost: no session shows a booking that has left it."""
    contact, _, booking = await booked(world)
    await world.fault(world.batch(BOOKING, "create"), status=502, apply_first=True)
    await push(world, BOOKING)
    elsewhere, at_last = await world.exam(days=9), await world.exam(days=11)
    await move(world.db, contact, booking, elsewhere)
    await world.fault("/crm/associations/.*/batch/create", status=502, apply_first=True)
    now = (
        "update tallybook.sync_lanes set resume_at = clock_timestamp() where paused_at is not null",
        "update tallybook.outbox set next_attempt_at = clock_timestamp()",
    )
    for statement in now:
        await world.rows(statement)
    await push(world, BOOKING)
    await move(world.db, contact, booking, at_last)
    for statement in now:
        await world.rows(statement)

    await push(world, BOOKING)

    assert linked(await shown(world, booking)) == await both_of(world, contact, at_last)
    assert await world.outbox("booking") == {}


async def test_a_booking_made_and_cancelled_before_the_first_push_arrives_cancelled(world):
    contact, _, booking = await booked(world)
    await cancel(world.db, contact, booking)

    await push(world, BOOKING)

    assert (await shown(world, booking))["properties"]["is_active"] == "Cancelled"


async def test_a_change_during_the_write_is_sent_afterwards(world):
    contact, _, booking = await booked(world)
    await world.fault(world.batch(BOOKING, "create"), delay_ms=300)
    pushing = asyncio.create_task(push(world, BOOKING))
    await world.until(lambda: world.records(BOOKING))
    await cancel(world.db, contact, booking)
    await pushing
    assert len(await world.outbox("booking")) == 1

    await push(world, BOOKING)

    assert (await shown(world, booking))["properties"]["is_active"] == "Cancelled"
    assert await world.outbox("booking") == {}


async def test_a_batch_waits_until_it_is_full_or_the_oldest_has_waited(world):
    await booked(world)
    early = await push_batch(world.mirror, BOOKING)
    assert early.claimed == 0
    assert 0 < early.wait_s <= 1

    await asyncio.sleep(early.wait_s)
    assert (await push_batch(world.mirror, BOOKING)).claimed == 1

    exam = await world.exam(capacity=200)
    for contact in await world.students(100, credits={"sj_credits": 1}):
        await book(world.db, contact, exam)
    assert (await push_batch(world.mirror, BOOKING)).claimed == 100


async def test_bookings_reach_hubspot_while_students_book(world):
    """The loop itself: made, cancelled and moved at once; in the end both sides say the same."""
    exams = [await world.exam(mirrored=False, capacity=100, days=days) for days in (7, 8)]
    contacts = await world.students(30, credits={"sj_credits": 2})
    stop = asyncio.Event()
    running = asyncio.create_task(run_push(world.mirror, stop))

    async def act(number, contact):
        booking = await book(world.db, contact, exams[0])
        if number % 3 == 1:
            await cancel(world.db, contact, booking)
        elif number % 3 == 2:
            await move(world.db, contact, booking, exams[1])

    await asyncio.gather(*(act(*each) for each in enumerate(contacts)))
    await world.until_pushed()
    stop.set()
    await running

    ours = dict(await world.rows("select id::text, status from tallybook.bookings"))
    theirs = await world.records(BOOKING)
    assert theirs.keys() == ours.keys()
    for key, status in ours.items():
        record = await world.record(BOOKING, theirs[key]["id"])
        assert record["properties"]["is_active"] == status
        assert {name: len(ids) for name, ids in linked(record).items()} == {"contacts": 1, "mock_exams": 1}
    for exam in exams:
        properties = await world.properties(MOCK_EXAM, await world.hubspot_id("mock_exams", exam.id))
        taken = await world.value("select total_bookings from tallybook.mock_exams where id = %s", exam.id)
        assert properties["total_bookings"] == str(taken)


async def test_stopping_brings_what_is_on_its_way_to_its_end(world):
    _, _, booking = await booked(world)
    await world.fault(world.batch(BOOKING, "create"), delay_ms=700)
    stop = asyncio.Event()
    running = asyncio.create_task(run_push(world.mirror, stop))
    await world.until(lambda: world.records(BOOKING))

    stop.set()
    await running

    assert await world.hubspot_id("bookings", booking["id"]) is not None
    assert await world.outbox("booking") == {}


async def test_nothing_goes_to_a_portal_that_belongs_to_another_database(world):
    await booked(world)
    await world.rows(
        "insert into tallybook.sync_state (name, value) values ('portal', '{\"portal_id\": 1}')"
        " on conflict (name) do update set value = excluded.value"
    )
    with pytest.raises(SetupError):
        await push_until(world.mirror, max_s=5)
    stop = asyncio.Event()
    running = asyncio.create_task(run_push(world.mirror, stop))
    await asyncio.sleep(2)
    stop.set()
    await running

    assert await world.records(BOOKING) == {}


async def test_cron_pushes_what_waits_at_once(world):
    await booked(world)

    result = await push_until(world.mirror, max_s=20)

    assert result.done
    assert await world.outbox("booking") == {}
    assert await world.outbox("mock_exam") == {}


async def test_a_booking_whose_contact_was_deleted_waits_for_the_decision_and_no_longer(world):
    """Staff see the contact and leave it so: nothing waits for ever, and the seat stays taken."""
    contact, _, booking = await booked(world)
    await world.portal.post("edits", object_type="contacts", id=contact.hubspot_id, properties={}, erase=True)
    await world.pull_all([contact])
    ((conflict, ours),) = await world.rows(
        "select id, ours from tallybook.sync_conflicts where kind = 'deleted' and resolved_at is null"
    )
    assert "live bookings 1" in ours
    await world.due()
    await push(world, BOOKING)
    assert set(await world.outbox("booking")) == {UUID(booking["id"])}, "undecided, it waits"

    await resolve_conflict(
        world.db,
        conflict_id=conflict,
        choice=Choice.DISMISS,
        value=None,
        reason="she left",
        actor="cli:ada",
    )
    await world.due()
    await push(world, BOOKING)

    assert await world.outbox("booking") == {}
    assert (await reconcile_mirror(world.mirror, repair=True)).counts["unpushed"] == 0
    assert await world.value("select status from tallybook.bookings where id = %s", booking["id"]) == "Active"
    # Had she come back, it would be told.
    await world.rows("update tallybook.contacts set archived_at = null where id = %s", contact.id)
    assert set(await world.outbox("booking")) == {UUID(booking["id"])}
    await world.rows("update tallybook.contacts set archived_at = now() where id = %s", contact.id)


async def test_a_cancelled_booking_of_an_archived_contact_is_not_waited_for(world):
    """HubSpot never heard of it and need not; a live one waits until the contact is restored."""
    contact, _, booking = await booked(world)
    await world.rows("update tallybook.contacts set archived_at = now() where id = %s", contact.id)
    await world.due()
    await push(world, BOOKING)
    assert set(await world.outbox("booking")) == {UUID(booking["id"])}
    await cancel(world.db, None, booking)
    await world.due()
    await push(world, BOOKING)
    assert await world.outbox("booking") == {}

    # Out of the recycle bin again: now it is told, as it ended.
    await world.rows("update tallybook.contacts set archived_at = null where id = %s", contact.id)
    assert set(await world.outbox("booking")) == {UUID(booking["id"])}
    await world.due()
    await push(world, BOOKING)
    assert await world.outbox("booking") == {}
    told = "select hubspot_id is not null from tallybook.bookings where id = %s"
    assert await world.value(told, booking["id"])
