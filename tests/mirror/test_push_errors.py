"""One record's fault costs one record; anything else stops the lane, loses nothing and is told to people."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from support.factories import book, cancel, grant, make_local_contact, move
from support.push_world import BOOKING, CONTACT, MOCK_EXAM
from tallybook.usecases.pause_lane import seconds_to_midnight
from tallybook.usecases.preview_push import preview_push
from tallybook.usecases.push_changes import push_batch
from tallybook.usecases.reconcile_mirror import reconcile_mirror


async def push(world, lane):
    await world.due()
    return await push_batch(world.mirror, lane, linger=False)


async def bookings(world, number):
    """So many bookings of as many students that HubSpot has not heard of."""
    exam = await world.exam(capacity=number)
    contacts = await world.students(number, credits={"sj_credits": 1})
    return [await book(world.db, contact, exam) for contact in contacts]


async def poison(world, booking):
    """HubSpot will not have this one's values."""
    await world.rows(
        "update tallybook.bookings set attending_location = repeat('x', 70000) where id = %s", booking["id"]
    )


async def lane(world, name):
    """A lane's state: (reason, words, seconds until it probes); None while it runs."""
    found = await world.rows(
        "select reason, words, extract(epoch from resume_at - clock_timestamp())::float8"
        " from tallybook.sync_lanes where lane = %s and paused_at is not null",
        name,
    )
    return found[0] if found else None


async def alert(world, name):
    """Whether people have been told of a paused lane and not yet of its end."""
    return await world.value(
        "select details ->> 'reason' from tallybook.sync_alerts"
        " where kind = 'lane_paused' and subject = %s and cleared_at is null",
        name,
    )


async def test_one_poisoned_record_of_a_hundred_costs_itself_only(world):
    made = await bookings(world, 100)
    await poison(world, made[42])

    result = await push(world, BOOKING)

    assert (result.claimed, result.written, result.dead) == (100, 99, 1)
    assert len(await world.records(BOOKING)) == 99
    ((_, words, dead),) = (await world.outbox("booking")).values()
    assert dead
    assert "65536" in words
    assert await lane(world, "booking") is None


async def test_where_hubspot_refuses_whole_batches_the_poisoned_one_is_found_by_halving(world):
    """A portal that does not know trace ids refuses all hundred with one error that names nobody."""
    made = await bookings(world, 100)
    await poison(world, made[42])
    async with world.without_trace_ids() as mirror:
        before = (await world.calls())["batch_create"]

        result = await push_batch(mirror, BOOKING, linger=False)

    assert (result.claimed, result.written, result.dead) == (100, 99, 1)
    assert len(await world.records(BOOKING)) == 99
    assert (await world.calls())["batch_create"] - before <= 15
    assert [dead for _, _, dead in (await world.outbox("booking")).values()] == [True]


async def test_a_new_version_of_a_dead_object_is_tried_again(world):
    (booking,) = await bookings(world, 1)
    await poison(world, booking)
    await push(world, BOOKING)
    assert [dead for _, _, dead in (await world.outbox("booking")).values()] == [True]
    await world.rows("update tallybook.bookings set attending_location = null where id = %s", booking["id"])

    await cancel(world.db, None, booking)
    result = await push(world, BOOKING)

    assert result.written == 1
    assert await world.outbox("booking") == {}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"status": 429}, "limit"),
        ({"status": 401}, "unauthorised"),
        ({"status": 403}, "forbidden"),
        ({"status": 477, "headers": {"retry-after": "120"}}, "migrating"),
        ({"status": 503}, "unavailable"),
        (
            {"status": 429, "body": {"status": "error", "message": "Daily!", "policyName": "DAILY"}},
            "daily_limit",
        ),
        (
            {
                "status": 400,
                "body": {
                    "status": "error",
                    "category": "VALIDATION_ERROR",
                    "message": "Property values were not valid",
                    "errors": [{"message": "no such property", "code": "PROPERTY_DOESNT_EXIST"}],
                },
            },
            "unknown_property",
        ),
        ({"status": 404, "body": {"message": "no such address"}}, "setup"),
    ],
    ids=["429", "401", "403", "477", "503", "daily", "unknown-property", "address"],
)
async def test_what_is_no_records_fault_pauses_the_lane_keeps_its_rows_and_tells_people(world, fault, reason):
    made = await bookings(world, 3)
    contact = await world.student(credits={"sj_credits": 1})
    await grant(world.db, contact, "sj_credits", 1)
    await world.fault(world.batch(BOOKING, "create"), **fault)

    result = await push(world, BOOKING)

    assert (result.paused, result.written, result.dead) == (reason, 0, 0)
    assert list((await world.outbox("booking")).values()) == 3 * [(0, None, False)]
    found, words, wait_s = await lane(world, "booking")
    assert (found, await alert(world, "booking")) == (reason, reason)
    assert words
    assert wait_s > 0.5
    if reason == "migrating":
        assert 119 < wait_s < 151
    assert (await push(world, BOOKING)).claimed == 0
    assert (await push(world, CONTACT)).written == 4, "the other lanes go on"

    # Its time has come: one record goes ahead, then the others.
    await world.resume("booking")
    probe = await push(world, BOOKING)
    assert (probe.claimed, probe.written) == (1, 1)
    assert await lane(world, "booking") is None
    assert await alert(world, "booking") is None
    assert (await push(world, BOOKING)).written == 2
    assert len(await world.records(BOOKING)) == len(made)


async def test_pauses_grow_while_it_goes_on_failing(world):
    await bookings(world, 1)
    waits = []
    for _ in range(4):
        await world.fault(world.batch(BOOKING, "(create|upsert)"), status=503)
        await push(world, BOOKING)
        waits.append((await lane(world, "booking"))[2])
        await world.resume("booking")
    assert waits == sorted(waits)
    assert waits[-1] >= 7


async def test_two_who_probe_at_once_send_one_record(world):
    await bookings(world, 3)
    await world.fault(world.batch(BOOKING, "create"), status=429)
    await push(world, BOOKING)
    await world.resume("booking")
    await world.due()

    results = await asyncio.gather(*(push_batch(world.mirror, BOOKING, linger=False) for _ in range(4)))

    assert sum(result.claimed for result in results) <= 1 + 2
    assert sorted(result.claimed for result in results)[:2] == [0, 0]


async def test_the_daily_limit_ends_at_the_portals_midnight():
    now = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)
    wait_s = seconds_to_midnight(now, "America/Toronto")
    assert 9 * 3600 <= wait_s <= 9 * 3600 + 60


async def test_a_property_that_hubspot_makes_read_only_is_left_out(world):
    exam = await world.exam(mirrored=False, capacity=7)
    await world.rows("update tallybook.mock_exams set address = 'Main Street 1' where id = %s", exam.id)
    await world.rows("select tallybook.note_changes(array['mock_exam'], array[%s::uuid])", exam.id)
    refusal = {
        "status": "error",
        "message": "Property values were not valid",
        "errors": [{"message": "read only", "code": "READ_ONLY_VALUE"}],
    }
    await world.fault(world.batch(MOCK_EXAM, "upsert"), status=400, body=refusal)
    assert (await push(world, MOCK_EXAM)).paused == "read_only_property"
    await world.declare_read_only(MOCK_EXAM, "address")
    await world.resume("mock_exam")

    result = await push(world, MOCK_EXAM)

    assert (result.written, result.paused) == (1, None)
    properties = await world.properties(MOCK_EXAM, await world.hubspot_id("mock_exams", exam.id))
    assert "address" not in properties
    assert properties["capacity"] == "7"
    assert await world.outbox("mock_exam") == {}, "what cannot be written is not waited for"


async def test_what_nobody_can_write_is_not_found_missing_by_every_reconcile(world):
    """The number differs and will; nothing is queued for it, and nothing counted as not told."""
    student = await world.student(credits={"sj_credits": 3})
    await world.declare_read_only(CONTACT, "sj_credits")
    await grant(world.db, student, "sj_credits", 2)
    await push(world, CONTACT)
    assert await world.outbox("contact") == {}
    compared = await reconcile_mirror(world.mirror, repair=True)
    assert (compared.done, compared.counts["ours"], compared.counts["unpushed"]) == (True, 1, 0)
    assert await world.outbox("contact") == {}


async def test_a_property_that_does_not_exist_pauses_the_lane_until_it_does(world):
    (booking,) = await bookings(world, 1)
    await world.portal_property(BOOKING, "token_used", exists=False)

    paused = await push(world, BOOKING)

    assert (paused.paused, paused.dead) == ("unknown_property", 0)
    assert "token_used" in (await lane(world, "booking"))[1]
    await world.portal_property(BOOKING, "token_used", exists=True)
    await world.resume("booking")
    assert (await push(world, BOOKING)).written == 1
    assert list(await world.records(BOOKING)) == [booking["id"]]


async def test_a_balance_whose_property_was_deleted_pauses_the_lane_by_its_name(world):
    """What was never met there cannot be read: people are told, and only probes read it again."""
    await world.portal_property(CONTACT, "sjmini_credits", exists=False)
    student = await make_local_contact(world.db, student_id="S7", credits={"sjmini_credits": 2})

    paused = await push(world, CONTACT)

    assert (paused.paused, paused.dead) == ("unknown_property", 0)
    assert (await lane(world, "contact"))[:2] == (
        "unknown_property",
        "HubSpot's contacts have no property sjmini_credits",
    )
    assert await alert(world, "contact") == "unknown_property"
    reads = (await world.calls())["batch_read"]
    for _ in range(5):
        assert (await push(world, CONTACT)).claimed == 0
    assert (await world.calls())["batch_read"] == reads
    await world.resume("contact")
    assert (await push(world, CONTACT)).paused == "unknown_property"
    await world.portal_property(CONTACT, "sjmini_credits", exists=True)
    for _ in range(3):
        await world.resume("contact")
        await push(world, CONTACT)
    assert (await world.outbox("contact"), await lane(world, "contact")) == ({}, None)
    hubspot_id = await world.hubspot_id("contacts", student.id)
    assert (await world.properties(CONTACT, hubspot_id))["sjmini_credits"] == "2"


async def test_a_property_nobody_has_credits_for_is_not_missed(world):
    """A credit type that is not used yet holds nobody up."""
    await world.portal_property(CONTACT, "sjmini_credits", exists=False)
    student = await world.student(credits={"sj_credits": 3})
    await grant(world.db, student, "sj_credits", 2)
    assert (await push(world, CONTACT)).paused is None
    assert await world.outbox("contact") == {}
    assert (await world.properties(CONTACT, student.hubspot_id))["sj_credits"] == "5"


async def test_a_locked_record_is_tried_again_after_two_seconds(world):
    await bookings(world, 2)
    await world.fault(world.batch(BOOKING, "create"), status=423)
    started = asyncio.get_running_loop().time()

    result = await push(world, BOOKING)

    assert (result.written, result.paused) == (2, None)
    assert asyncio.get_running_loop().time() - started >= 2


async def test_a_record_that_stays_locked_waits_without_dying(world):
    await bookings(world, 1)
    await world.fault(world.batch(BOOKING, "create"), status=423, times=3)

    result = await push(world, BOOKING)

    assert (result.written, result.dead, result.failed) == (0, 0, 1)
    assert [dead for _, _, dead in (await world.outbox("booking")).values()] == [False]
    assert (await push(world, BOOKING)).written == 1


async def test_a_slow_answer_is_an_unknown_outcome(world):
    (booking,) = await bookings(world, 1)
    await world.fault(world.batch(BOOKING, "create"), apply_first=True, delay_ms=3_000)
    async with world.portal.client(answer_timeout_s=0.4) as client:
        mirror = replace(world.mirror, client=client)
        result = await push_batch(mirror, BOOKING, linger=False)
    assert result.paused == "unavailable"
    await world.resume("booking")

    assert (await push(world, BOOKING)).written == 1

    assert list(await world.records(BOOKING)) == [booking["id"]]


async def test_hubspot_being_away_leaves_everything_as_it_was(world):
    await bookings(world, 2)
    async with world.elsewhere() as mirror:
        result = await push_batch(mirror, BOOKING, linger=False)
    assert (result.paused, result.dead) == ("unavailable", 0)
    await world.resume("booking")
    await push(world, BOOKING)
    assert (await push(world, BOOKING)).written + 1 == 2


async def test_a_booking_deleted_in_hubspot_is_read_before_anybody_gives_up(world):
    (booking,) = await bookings(world, 1)
    await push(world, BOOKING)
    hubspot_id = await world.hubspot_id("bookings", booking["id"])
    await world.portal.post("edits", object_type=world.mirror.crm_type(BOOKING), id=hubspot_id, archived=True)
    await cancel(world.db, None, booking)

    result = await push(world, BOOKING)

    assert (result.written, result.dead, result.failed) == (0, 0, 1)
    asked = await world.rows("select object_type, hubspot_id from tallybook.inbox")
    assert asked == [("booking", hubspot_id)]
    # A person is asked; until then there is nothing to write to.
    await world.rows(
        "select tallybook.open_conflict('booking', %s, '', 'deleted', null, null, '{}', false)", booking["id"]
    )
    await push(world, BOOKING)
    assert await world.outbox("booking") == {}


async def test_a_booking_that_exists_there_already_is_written_and_not_made_twice(world):
    """Its creation landed long ago and was forgotten, as after a restored backup: HubSpot knows our id."""
    (booking,) = await bookings(world, 1)
    there = await world.create(world.mirror.crm_type(BOOKING), tallybook_id=booking["id"])

    await push(world, BOOKING)
    await push(world, BOOKING)

    assert list(await world.records(BOOKING)) == [booking["id"]]
    record = await world.record(BOOKING, there)
    assert record["properties"]["booking_id"] == booking["booking_id"]
    assert {name: len(ids) for name, ids in record["associations"].items()} == {
        "contacts": 1,
        "mock_exams": 1,
    }
    assert await world.outbox("booking") == {}


async def test_a_booking_whose_contact_is_gone_there_waits_for_what_reading_it_says(world):
    (booking,) = await bookings(world, 1)
    hubspot_id = await world.value("select hubspot_id from tallybook.contacts")
    await world.portal.post("edits", object_type="contacts", id=hubspot_id, archived=True)

    result = await push(world, BOOKING)

    assert (result.written, result.dead, result.failed) == (0, 0, 1)
    asked = await world.rows("select object_type, hubspot_id from tallybook.inbox order by 1")
    assert ("contact", hubspot_id) in asked
    # Reading it marks the contact as archived: from now on the booking waits without using up attempts.
    await world.rows("update tallybook.contacts set archived_at = clock_timestamp()")
    await push(world, BOOKING)
    assert [(attempts, dead) for attempts, _, dead in (await world.outbox("booking")).values()] == [
        (1, False)
    ]
    await world.portal.post("edits", object_type="contacts", id=hubspot_id, archived=False)
    await world.rows("update tallybook.contacts set archived_at = null")
    assert (await push(world, BOOKING)).written == 1
    assert list(await world.records(BOOKING)) == [booking["id"]]


async def test_a_booking_leaves_a_session_that_is_gone_there(world):
    """The old association went with the old session; only the new one has to be made."""
    (booking,) = await bookings(world, 1)
    await push(world, BOOKING)
    old = await world.value("select hubspot_id from tallybook.mock_exams")
    new = await world.exam(days=20)
    await world.portal.post("edits", object_type=world.mirror.crm_type(MOCK_EXAM), id=old, archived=True)
    await move(world.db, None, booking, new)

    result = await push(world, BOOKING)

    assert (result.written, result.dead, result.failed) == (1, 0, 0)
    record = await world.record(BOOKING, await world.hubspot_id("bookings", booking["id"]))
    new_id = await world.hubspot_id("mock_exams", new.id)
    assert [each["id"] for each in record["associations"]["mock_exams"]] == [new_id]
    assert await world.outbox("booking") == {}


@pytest.mark.parametrize("verb", ["create", "archive"])
async def test_associations_that_fail_for_the_lanes_sake_are_all_made_later(world, verb):
    made = await bookings(world, 3)
    await push(world, BOOKING)
    new = await world.exam(days=20)
    for booking in made:
        await move(world.db, None, booking, new)
    await world.fault(f"/associations/.*/batch/{verb}$", status=503)

    result = await push(world, BOOKING)

    assert result.paused == "unavailable"
    assert list((await world.outbox("booking")).values()) == 3 * [(0, None, False)]
    await world.resume("booking")
    for _ in range(2):
        await push(world, BOOKING)
    assert await world.outbox("booking") == {}
    new_id = await world.hubspot_id("mock_exams", new.id)
    for booking in made:
        record = await world.record(BOOKING, await world.hubspot_id("bookings", booking["id"]))
        assert [each["id"] for each in record["associations"]["mock_exams"]] == [new_id]


async def test_a_booking_whose_new_session_is_gone_there_is_tried_again_once_it_was_read(world):
    (booking,) = await bookings(world, 1)
    await push(world, BOOKING)
    new = await world.exam(days=20)
    new_id = await world.hubspot_id("mock_exams", new.id)
    await world.portal.post("edits", object_type=world.mirror.crm_type(MOCK_EXAM), id=new_id, archived=True)
    await move(world.db, None, booking, new)

    result = await push(world, BOOKING)

    assert (result.dead, result.paused) == (0, None)
    assert ("mock_exam", new_id) in await world.rows("select object_type, hubspot_id from tallybook.inbox")
    ((attempts, _, dead),) = (await world.outbox("booking")).values()
    assert (attempts, dead) == (1, False)
    await world.portal.post("edits", object_type=world.mirror.crm_type(MOCK_EXAM), id=new_id, archived=False)
    await push(world, BOOKING)
    assert await world.outbox("booking") == {}


async def test_a_probe_that_only_reads_does_not_end_a_pause_of_writing(world):
    contact = await world.student(credits={"sj_credits": 1})
    await grant(world.db, contact, "sj_credits", 1)
    await world.rows("update tallybook.contacts set crm_unread = true")
    await world.rows("select tallybook.pause_lane('contact', 'forbidden', 'no scope', 0, 0)")

    assert (await push(world, CONTACT)).claimed == 1
    assert (await lane(world, "contact"))[0] == "forbidden"

    assert (await push(world, CONTACT)).written == 1
    assert await lane(world, "contact") is None


async def test_a_contact_refused_by_a_limit_is_not_read_first_since_nothing_was_written(world):
    contact = await world.student(credits={"sj_credits": 1})
    await grant(world.db, contact, "sj_credits", 1)
    await world.fault(world.batch(CONTACT, "update"), status=429)
    assert (await push(world, CONTACT)).paused == "limit"
    assert not await world.value("select crm_unread from tallybook.contacts where id = %s", contact.id)
    await world.resume("contact")
    before = (await world.calls())["batch_read"]

    assert (await push(world, CONTACT)).written == 1

    assert (await world.calls())["batch_read"] - before == 1
    properties = await world.properties(CONTACT, contact.hubspot_id)
    # The number of an attempt that nobody applied is not used again.
    assert properties["tallybook_sync"] == "2 sj_credits=2"


async def test_contacts_of_a_refused_batch_are_numbered_afresh_and_the_bad_one_is_found(world):
    contacts = await world.students(8, credits={"sj_credits": 1})
    for contact in contacts:
        await grant(world.db, contact, "sj_credits", 1)
    bad = contacts[5]
    await world.rows("update tallybook.contacts set lastname = repeat('x', 70000) where id = %s", bad.id)
    async with world.without_trace_ids() as mirror:
        result = await push_batch(mirror, CONTACT, linger=False)

    assert (result.claimed, result.written, result.dead) == (8, 7, 1)
    for contact in contacts:
        properties = await world.properties(CONTACT, contact.hubspot_id)
        write_no = await world.value("select write_no from tallybook.contacts where id = %s", contact.id)
        if contact == bad:
            assert properties["sj_credits"] == "1"
        else:
            assert properties["tallybook_sync"] == f"{write_no} sj_credits=2"
            assert write_no > 1
    assert await world.value("select count(*) from tallybook.contacts where crm_unread") == 0


async def test_an_email_that_hubspot_refuses_is_the_contacts_own_dead_letter(world):
    good, bad = await world.students(2, credits={"sj_credits": 1})
    for contact in (good, bad):
        await grant(world.db, contact, "sj_credits", 1)
    await world.rows("update tallybook.contacts set lastname = repeat('x', 70000) where id = %s", bad.id)

    result = await push(world, CONTACT)

    assert (result.written, result.dead) == (1, 1)
    assert (await world.properties(CONTACT, good.hubspot_id))["sj_credits"] == "2"
    assert not await world.value("select crm_unread from tallybook.contacts where id = %s", bad.id)
    assert await world.value("select count(*) from tallybook.outbox where dead_at is not null") == 1


async def test_nothing_is_pushed_while_held_or_observing(world):
    await bookings(world, 1)
    observing = replace(world.mirror, observe=True)
    assert (await push_batch(observing, BOOKING, linger=False)).claimed == 0
    await world.rows(
        "insert into tallybook.sync_state (name, value) values ('hold', '{\"reason\": \"a test\"}')"
    )
    assert (await push(world, BOOKING)).claimed == 0
    await world.rows("delete from tallybook.sync_state where name = 'hold'")
    assert (await push(world, BOOKING)).written == 1


async def test_a_preview_lists_what_would_be_written_and_changes_nothing(world):
    (booking,) = await bookings(world, 1)
    before = await world.rows("select * from tallybook.outbox order by object_type")
    planned = {each.object_type: each for each in await preview_push(world.mirror)}

    assert planned.keys() == {BOOKING, CONTACT, MOCK_EXAM}
    assert planned[BOOKING].action == "create"
    assert planned[BOOKING].properties["booking_id"] == booking["booking_id"]
    assert planned[CONTACT].properties["sj_credits"] == "0"
    assert planned[MOCK_EXAM].properties["total_bookings"] == "1"
    assert await world.rows("select * from tallybook.outbox order by object_type") == before
    assert await world.value("select max(write_no) from tallybook.contacts") == 0
