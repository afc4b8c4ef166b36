"""Records read before one of our writes and absorbed after it was confirmed: nothing of ours is undone."""

import pytest

from support.factories import balances, book, cancel
from support.push_world import BOOKING, MOCK_EXAM
from tallybook.hubspot.booking_fields import BOOKING_PROPERTIES
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.session_fields import MOCK_EXAM_PROPERTIES
from tallybook.usecases.absorb_bookings import absorb_bookings
from tallybook.usecases.absorb_mock_exams import absorb_mock_exams
from tallybook.usecases.pull_bookings import pull_bookings
from tallybook.usecases.pull_mock_exams import pull_mock_exams
from tallybook.usecases.push_changes import push_batch


async def read(world, of, hubspot_id, properties):
    """What a pull has read and not absorbed yet."""
    return await world.mirror.client.batch_read(
        world.mirror.crm_type(of), [hubspot_id], properties=properties, kind=CallKind.PULL, deadline_s=10
    )


@pytest.mark.parametrize("has_been_pulled", [False, True])
async def test_an_answer_from_before_our_cancellation_does_not_reinstate_the_booking(world, has_been_pulled):
    """`Active` was nobody's command: it is what HubSpot showed before it was told."""
    student = await world.student(credits={"sj_credits": 3})
    booking = await book(world.db, student, await world.exam())
    await push_batch(world.mirror, BOOKING, linger=False)
    hubspot_id = await world.hubspot_id("bookings", booking["id"])
    if has_been_pulled:
        await pull_bookings(world.mirror, [hubspot_id], kind=CallKind.PULL)
    late = await read(world, BOOKING, hubspot_id, BOOKING_PROPERTIES)
    await cancel(world.db, student, booking)
    await push_batch(world.mirror, BOOKING, linger=False)

    pulled = await absorb_bookings(world.mirror, late)

    status = await world.value("select status from tallybook.bookings where id = %s", booking["id"])
    assert (status, (await balances(world.db, student))["sj_credits"]) == ("Cancelled", 3)
    assert pulled.again == (hubspot_id,)
    assert (await pull_bookings(world.mirror, [hubspot_id], kind=CallKind.PULL)).again == ()


async def test_a_command_given_before_our_write_is_obeyed_when_read_again(world):
    """The late answer is put aside, not what a person typed: attendance, while a place was changed here."""
    student = await world.student(credits={"sj_credits": 3})
    booking = await book(world.db, student, await world.exam())
    await push_batch(world.mirror, BOOKING, linger=False)
    hubspot_id = await world.hubspot_id("bookings", booking["id"])
    await world.edit(BOOKING, hubspot_id, attendance="Yes")
    late = await read(world, BOOKING, hubspot_id, BOOKING_PROPERTIES)
    await world.rows(
        "update tallybook.bookings set attending_location = 'Calgary' where id = %s", booking["id"]
    )
    await world.rows("select tallybook.note_changes(array['booking'], array[%s::uuid])", booking["id"])
    await push_batch(world.mirror, BOOKING, linger=False)

    assert (await absorb_bookings(world.mirror, late)).again == (hubspot_id,)
    await pull_bookings(world.mirror, [hubspot_id], kind=CallKind.PULL)

    assert await world.rows(
        "select status, attendance, attending_location from tallybook.bookings where id = %s", booking["id"]
    ) == [("Completed", "Yes", "Calgary")]


async def test_an_answer_from_before_our_edit_of_a_session_does_not_take_it_back(world):
    exam = await world.exam(capacity=10, mirrored=False)
    await world.rows("select tallybook.note_changes(array['mock_exam'], array[%s::uuid])", exam.id)
    await push_batch(world.mirror, MOCK_EXAM, linger=False)
    hubspot_id = await world.hubspot_id("mock_exams", exam.id)
    late = await read(world, MOCK_EXAM, hubspot_id, MOCK_EXAM_PROPERTIES)
    await world.rows("update tallybook.mock_exams set capacity = 25 where id = %s", exam.id)
    await world.rows("select tallybook.note_changes(array['mock_exam'], array[%s::uuid])", exam.id)
    await push_batch(world.mirror, MOCK_EXAM, linger=False)

    pulled = await absorb_mock_exams(world.mirror, late)

    assert await world.value("select capacity from tallybook.mock_exams where id = %s", exam.id) == 25
    assert pulled.again == (hubspot_id,)
    assert (await pull_mock_exams(world.mirror, [hubspot_id], kind=CallKind.PULL)).again == ()
