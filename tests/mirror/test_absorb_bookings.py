"""Bookings edited, made and deleted in HubSpot: a status is a command, what a student decided stays ours."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from support.factories import balances, book, cancel, make_contact, make_contacts, make_mock_exam, move
from support.remote_sessions import (
    BOOKING_TO_CONTACT,
    RemoteSide,
    conflicts,
    import_is_over,
    ours,
    query,
    waiting,
)
from tallybook.domain.errors import Refusal
from tallybook.hubspot.booking_fields import BOOKING_PROPERTIES
from tallybook.hubspot.budget import CallKind
from tallybook.usecases.absorb_bookings import absorb_bookings
from tallybook.usecases.pull_bookings import pull_bookings
from tallybook.usecases.pull_contacts import pull_contacts
from tallybook.usecases.pull_mock_exams import pull_mock_exams


@pytest.fixture
def remote(portal, mirror):
    return RemoteSide(portal, mirror)


@pytest.fixture
async def world(mirror, remote, db):
    """Two students with a credit each and a session for two, on both sides; the import is over."""
    await import_is_over(db)
    return World(mirror, remote, db)


class World:
    def __init__(self, mirror, remote, db):
        self.mirror, self.remote, self.db = mirror, remote, db

    async def student(self, **balances):
        hubspot_id = await self.remote.contact(**balances)
        await pull_contacts(self.mirror, [hubspot_id], kind=CallKind.PULL)
        row = await ours(self.db, "contacts", hubspot_id)
        return SimpleNamespace(id=row["id"], hubspot_id=hubspot_id)

    async def exam(self, **properties):
        hubspot_id = await self.remote.exam(**properties)
        await pull_mock_exams(self.mirror, [hubspot_id], kind=CallKind.PULL)
        row = await ours(self.db, "mock_exams", hubspot_id)
        return SimpleNamespace(id=row["id"], hubspot_id=hubspot_id)

    async def booked(self, student, exam):
        """A booking made here that HubSpot has been told of: its HubSpot id."""
        made = await book(self.db, student, exam)
        ((texts,),) = await query(
            self.db,
            "select tallybook.booking_mirror(b) from tallybook.bookings b where id = %s",
            made["id"],
        )
        known = {name: text for name, text in json.loads(texts).items() if text is not None}
        hubspot_id = await self.remote.booking(
            student.hubspot_id, exam.hubspot_id, **known | {"tallybook_id": made["id"]}
        )
        await self.pull(hubspot_id)
        await query(self.db, "delete from tallybook.outbox")
        return hubspot_id

    async def pull(self, *ids):
        return await pull_bookings(self.mirror, ids, kind=CallKind.PULL)

    async def type(self, hubspot_id, **properties):
        """Staff type something on the booking, and it is pulled."""
        await self.remote.edit(self.remote.bookings, hubspot_id, **properties)
        return await self.pull(hubspot_id)

    async def seat(self, hubspot_id):
        row = await ours(self.db, "bookings", hubspot_id)
        return SimpleNamespace(**row) if row else None

    async def credits(self, student):
        return (await balances(self.db, student))["sj_credits"]

    async def resolve(self, choice, *, value=None):
        """Decides the only open conflict; the refusal or None."""
        rows = await query(
            self.db,
            "select (tallybook.resolve_conflict(c.id, %s, %s, 'staff:1', 'because')).refusal"
            " from tallybook.sync_conflicts c where c.resolved_at is null",
            choice,
            value,
        )
        assert len(rows) == 1
        return rows[0][0]


async def test_a_booking_made_here_is_known_by_our_id(world):
    """The creation's answer was lost: the record is linked, not booked again."""
    student, exam = await world.student(sj_credits=1), await world.exam()

    hubspot_id = await world.booked(student, exam)

    seat = await world.seat(hubspot_id)
    assert (seat.crm_contact_hubspot_id, seat.crm_mock_exam_hubspot_id) == (
        student.hubspot_id,
        exam.hubspot_id,
    )
    assert await query(world.db, "select count(*) from tallybook.bookings") == [(1,)]
    assert (await conflicts(world.db), await waiting(world.db)) == ([], {})


async def test_an_unchanged_booking_costs_one_note_of_the_comparison(world):
    """And one call: whose it is, is known."""
    hubspot_id = await world.booked(await world.student(sj_credits=1), await world.exam())
    before = await world.seat(hubspot_id)
    calls = (await world.remote.door.get("/_simulator/stats")).json()["total"]

    done = await world.pull(hubspot_id)

    after = await world.seat(hubspot_id)
    assert (done.read, done.absorbed) == (1, 1)
    assert after.synced_at > before.synced_at
    before.synced_at = after.synced_at
    assert before == after
    assert (await world.remote.door.get("/_simulator/stats")).json()["total"] == calls + 1


@pytest.mark.parametrize("typed", ["Cancelled", "cancelled"])
async def test_cancelled_typed_there_cancels_and_refunds(world, typed):
    """Staff's cancellation, under the catalog's rule; the actor says where it came from."""
    student = await world.student(sj_credits=1)
    hubspot_id = await world.booked(student, await world.exam())

    await world.type(hubspot_id, is_active=typed)

    seat = await world.seat(hubspot_id)
    assert (seat.status, seat.refunded) == ("Cancelled", True)
    assert seat.cancelled_by == "hubspot:12345"
    assert await world.credits(student) == 1
    # That the credit was given back is ours to tell.
    assert seat.id in (await waiting(world.db))["booking"]


async def test_a_command_is_obeyed_once(world):
    """However often the record is read, a cancellation gives back one credit."""
    student = await world.student(sj_credits=1)
    hubspot_id = await world.booked(student, await world.exam())
    await world.remote.edit(world.remote.bookings, hubspot_id, is_active="Cancelled")

    await asyncio.gather(*(world.pull(hubspot_id) for _ in range(8)))

    assert await world.credits(student) == 1
    rows = await query(world.db, "select count(*) from tallybook.credit_entries where reason = 'refund'")
    assert rows == [(1,)]


async def test_active_typed_on_a_cancelled_booking_takes_the_seat_again(world):
    """And spends again: the same booking, its number and its text."""
    student, exam = await world.student(sj_credits=1), await world.exam()
    hubspot_id = await world.booked(student, exam)
    before = await world.seat(hubspot_id)
    await world.type(hubspot_id, is_active="Cancelled")

    await world.type(hubspot_id, is_active="Active")

    after = await world.seat(hubspot_id)
    assert (after.status, after.id, after.booking_id, after.refunded) == (
        "Active",
        before.id,
        before.booking_id,
        None,
    )
    assert await world.credits(student) == 0
    assert (await ours(world.db, "mock_exams", exam.hubspot_id))["total_bookings"] == 1


@pytest.mark.parametrize("why", ["EXAM_FULL", "INSUFFICIENT_CREDITS", "EXAM_NOT_ACTIVE", "TIME_CONFLICT"])
async def test_a_refused_command_waits_for_a_person(world, why):
    """Ours stays, theirs is kept, and it is not tried again by itself, even when it would now be granted."""
    student = await world.student(sj_credits=1, cs_credits=1)
    exam = await world.exam(capacity=1)
    hubspot_id = await world.booked(student, exam)
    await world.type(hubspot_id, is_active="Cancelled")
    other = await world.student(sj_credits=1)
    undo = await self_made(world, why, student=student, other=other, exam=exam)
    await query(world.db, "delete from tallybook.outbox")

    for _ in range(2):
        await world.type(hubspot_id, is_active="Active")

    assert (await world.seat(hubspot_id)).status == "Cancelled"
    assert await conflicts(world.db) == [("command_refused", "is_active", "Cancelled", "Active")]
    ((code,),) = await query(world.db, "select details ->> 'code' from tallybook.sync_conflicts")
    assert code == why
    assert await world.resolve("theirs") == why
    await undo()
    await world.type(hubspot_id, booking_id=(await world.seat(hubspot_id)).booking_id)
    assert (await world.seat(hubspot_id)).status == "Cancelled"
    assert await world.resolve("theirs") is None
    assert (await world.seat(hubspot_id)).status == "Active"


async def self_made(world, why, *, student, other, exam):
    """Brings about a reason to refuse; gives what takes it away."""
    db = world.db
    if why == "EXAM_FULL":
        taken = await book(db, other, exam)
        return lambda: cancel(db, other, taken)
    if why == "INSUFFICIENT_CREDITS":
        spent = await book(db, student, await make_mock_exam(db, days=20))
        return lambda: cancel(db, student, spent)
    if why == "TIME_CONFLICT":
        overlapping = await make_mock_exam(
            db, mock_type="Clinical Skills", days=7, start="10:00", end="11:00"
        )
        taken = await book(db, student, overlapping)
        return lambda: cancel(db, student, taken)
    change = "update tallybook.mock_exams set activation = %s where id = %s"
    await query(db, change, "inactive", exam.id)
    return lambda: query(db, change, "active", exam.id)


async def test_a_refused_command_that_staff_take_back_is_no_conflict(world):
    """They typed Cancelled again."""
    student, exam = await world.student(sj_credits=1), await world.exam(capacity=1)
    hubspot_id = await world.booked(student, exam)
    await world.type(hubspot_id, is_active="Cancelled")
    await book(world.db, await world.student(sj_credits=1), exam)
    await world.type(hubspot_id, is_active="Active")
    assert len(await conflicts(world.db)) == 1

    await world.type(hubspot_id, is_active="Cancelled")

    assert await conflicts(world.db) == []


async def test_ours_chosen_over_a_refused_command_is_written_there(world):
    """The booking is told to HubSpot again as it is."""
    student, exam = await world.student(sj_credits=1), await world.exam(capacity=1)
    hubspot_id = await world.booked(student, exam)
    await world.type(hubspot_id, is_active="Cancelled")
    await book(world.db, await world.student(sj_credits=1), exam)
    await query(world.db, "delete from tallybook.outbox")
    await world.type(hubspot_id, is_active="Active")

    assert await world.resolve("ours") is None

    seat = await world.seat(hubspot_id)
    assert (seat.status, seat.crm_base["is_active"]) == ("Cancelled", "Active")
    assert seat.id in (await waiting(world.db))["booking"]


@pytest.mark.parametrize("typed", ["Yes", "No"])
async def test_attendance_completes_and_emptied_reopens(world, typed):
    """A mark says that it took place; without it the booking is open again."""
    hubspot_id = await world.booked(await world.student(sj_credits=1), await world.exam())

    await world.type(hubspot_id, attendance=typed)
    marked = await world.seat(hubspot_id)
    await world.type(hubspot_id, attendance="")
    unmarked = await world.seat(hubspot_id)

    assert (marked.status, marked.attendance) == ("Completed", typed)
    assert (unmarked.status, unmarked.attendance) == ("Active", None)


async def test_completed_and_active_typed_there(world):
    """Without a mark of attendance; reopening takes one away."""
    hubspot_id = await world.booked(await world.student(sj_credits=1), await world.exam())

    await world.type(hubspot_id, is_active="Completed")
    completed = await world.seat(hubspot_id)
    await world.type(hubspot_id, attendance="Yes")
    await world.type(hubspot_id, is_active="Active", attendance="Yes")
    reopened = await world.seat(hubspot_id)

    assert (completed.status, completed.attendance) == ("Completed", None)
    assert (reopened.status, reopened.attendance) == ("Active", None)
    assert reopened.id in (await waiting(world.db))["booking"]


@pytest.mark.parametrize(
    ("field", "typed", "code"),
    [
        ("attendance", "Yes", "BOOKING_NOT_LIVE"),
        ("is_active", "Completed", "BOOKING_NOT_LIVE"),
        ("is_active", "Postponed", "VALIDATION_ERROR"),
        ("attendance", "maybe", "VALIDATION_ERROR"),
    ],
)
async def test_what_makes_no_sense_on_a_cancelled_booking_is_refused(world, field, typed, code):
    """And shown with its code."""
    hubspot_id = await world.booked(await world.student(sj_credits=1), await world.exam())
    await world.type(hubspot_id, is_active="Cancelled")

    await world.type(hubspot_id, **{field: typed})

    ((kind, where, _, theirs),) = await conflicts(world.db)
    assert (kind, where, theirs) == ("command_refused", field, typed)
    rows = await query(world.db, "select details ->> 'code' from tallybook.sync_conflicts")
    assert rows == [(code,)]


@pytest.mark.parametrize(
    ("field", "typed"),
    [
        ("token_used", "Clinical Skills Token"),
        ("attending_location", "Calgary"),
        ("dominant_hand", "true"),
        ("booking_id", "Something else"),
    ],
)
async def test_what_a_student_decided_is_written_back_and_shown(world, field, typed):
    """Neither lost nor obeyed."""
    hubspot_id = await world.booked(await world.student(sj_credits=1), await world.exam())
    before = await world.seat(hubspot_id)

    await world.type(hubspot_id, **{field: typed})

    after = await world.seat(hubspot_id)
    assert getattr(after, field) == getattr(before, field)
    ((kind, where, _, theirs),) = await conflicts(world.db)
    assert (kind, where, theirs) == ("both_changed", field, typed)
    assert await waiting(world.db) == {"booking": {after.id}}


async def test_a_person_may_take_their_place_and_hand_after_all(world):
    """What is no matter of credit or identity."""
    hubspot_id = await world.booked(await world.student(sj_credits=1), await world.exam())
    await world.type(hubspot_id, attending_location="Calgary")

    assert await world.resolve("theirs") is None

    assert (await world.seat(hubspot_id)).attending_location == "Calgary"
    await world.type(hubspot_id, token_used="Shared Token")
    assert await world.resolve("theirs") == "VALIDATION_ERROR"


async def test_a_value_of_ours_that_comes_back_is_no_edit(world):
    """Our cancellation, sent twice, lands late on what a person had typed in between."""
    student, exam = await world.student(sj_credits=2), await world.exam()
    hubspot_id = await world.booked(student, exam)
    await query(world.db, 'update tallybook.bookings set crm_sent = \'{"is_active": ["Cancelled"]}\'')

    await world.type(hubspot_id, is_active="Cancelled")

    seat = await world.seat(hubspot_id)
    assert (seat.status, await world.credits(student)) == ("Active", 1)
    assert await waiting(world.db) == {"booking": {seat.id}}


async def test_an_older_answer_changes_nothing(world):
    """A record read before it was reopened, absorbed after."""
    student = await world.student(sj_credits=1)
    hubspot_id = await world.booked(student, await world.exam())
    await world.remote.edit(world.remote.bookings, hubspot_id, is_active="Cancelled")
    older = await world.mirror.client.batch_read(
        world.remote.bookings, [hubspot_id], properties=BOOKING_PROPERTIES, kind=CallKind.PULL, deadline_s=5
    )
    await world.type(hubspot_id, is_active="Active")

    await absorb_bookings(world.mirror, older)

    assert (await world.seat(hubspot_id)).status == "Active"
    assert await world.credits(student) == 0


async def test_a_booking_made_by_hand_is_an_admin_override(world):
    """No credit is spent; the seat is."""
    student, exam = await world.student(sj_credits=1), await world.exam()
    hubspot_id = await world.remote.booking(student.hubspot_id, exam.hubspot_id)

    await world.pull(hubspot_id)

    seat = await world.seat(hubspot_id)
    assert (seat.status, seat.token_used, seat.contact_id) == ("Active", "Admin Override", student.id)
    assert await world.credits(student) == 1
    assert (await ours(world.db, "mock_exams", exam.hubspot_id))["total_bookings"] == 1
    assert seat.booked_by.startswith("hubspot")
    assert seat.id in (await waiting(world.db))["booking"]


@pytest.mark.parametrize("why", ["EXAM_FULL", "DUPLICATE_BOOKING", "EXAM_NOT_ACTIVE", "TIME_CONFLICT"])
async def test_a_handmade_booking_the_rules_refuse_waits_for_a_person(world, why):
    """Seat, day, overlap and activity hold for staff too; it is tried again when somebody says so."""
    student, exam = await world.student(sj_credits=2, cs_credits=1), await world.exam(capacity=1)
    if why == "DUPLICATE_BOOKING":
        taken = await book(world.db, student, exam)
        undo = lambda: cancel(world.db, student, taken)  # noqa: E731
    else:
        other = await world.student(sj_credits=1)
        undo = await self_made(world, why, student=student, other=other, exam=exam)
    hubspot_id = await world.remote.booking(student.hubspot_id, exam.hubspot_id)

    done = await world.pull(hubspot_id)

    assert done.errors == {hubspot_id: why}
    assert await conflicts(world.db) == [("handmade_refused", "record", None, hubspot_id)]
    assert await world.resolve("theirs") == why
    await undo()
    # Not by itself: only when it changes, or a person says so.
    assert (await world.pull(hubspot_id)).errors == {hubspot_id: "refused before"}
    assert await world.resolve("theirs") is None
    assert (await world.seat(hubspot_id)).status == "Active"
    assert await conflicts(world.db) == []


async def test_a_refused_handmade_booking_is_looked_at_again_when_it_changes(world):
    """Staff edit it; the seat is free by now."""
    student, exam = await world.student(), await world.exam(capacity=1)
    other = await world.student(sj_credits=1)
    taken = await book(world.db, other, exam)
    hubspot_id = await world.remote.booking(student.hubspot_id, exam.hubspot_id)
    await world.pull(hubspot_id)
    await cancel(world.db, other, taken)

    await world.type(hubspot_id, attending_location="Calgary")

    assert (await world.seat(hubspot_id)).attending_location == "Calgary"
    assert await conflicts(world.db) == []


async def test_a_dismissed_handmade_booking_stays_dismissed(world):
    """Until it changes."""
    student, exam = await world.student(), await world.exam(is_active="false")
    hubspot_id = await world.remote.booking(student.hubspot_id, exam.hubspot_id)
    await world.pull(hubspot_id)
    assert await world.resolve("dismiss") is None

    await world.pull(hubspot_id)
    assert await conflicts(world.db) == []
    await world.type(hubspot_id, attending_location="Calgary")
    assert len(await conflicts(world.db)) == 1


async def test_a_handmade_booking_brings_its_contact_and_session(world):
    """Both are unknown here and read first; the contact has no student ID."""
    guest = await world.remote.create("contacts", {"email": "hand@example.com"})
    exam = await world.remote.exam()
    hubspot_id = await world.remote.booking(guest, exam)

    await world.pull(hubspot_id)

    seat = await world.seat(hubspot_id)
    assert seat.contact_id == (await ours(world.db, "contacts", guest))["id"]
    assert seat.mock_exam_id == (await ours(world.db, "mock_exams", exam))["id"]


async def test_a_handmade_booking_without_a_contact_is_taken_once_it_has_one(world):
    """An association makes a record look no newer; it is taken all the same."""
    student, exam = await world.student(), await world.exam()
    hubspot_id = await world.remote.booking(None, None, links=[(exam.hubspot_id, 1303)])
    await world.pull(hubspot_id)
    assert [kind for kind, *_ in await conflicts(world.db)] == ["handmade_refused"]
    path = f"/crm/objects/2026-09/{world.remote.bookings}/{hubspot_id}/associations"
    answer = await world.remote.door.put(
        f"{path}/contacts/{student.hubspot_id}",
        headers={"Authorization": "Bearer pat-test"},
        json=[{"associationCategory": "USER_DEFINED", "associationTypeId": BOOKING_TO_CONTACT}],
    )
    assert answer.status_code == 201, answer.text

    await world.pull(hubspot_id)

    assert (await world.seat(hubspot_id)).contact_id == student.id
    assert await conflicts(world.db) == []


async def test_a_booking_of_a_merged_contact_is_the_survivors(world):
    """The old HubSpot id is an alias."""
    student, exam = await world.student(), await world.exam()
    await query(
        world.db,
        "insert into tallybook.contact_aliases (kind, value, contact_id) values ('hubspot_id', '4711', %s)",
        student.id,
    )
    hubspot_id = await world.remote.booking(
        None, None, links=[(exam.hubspot_id, 1303)], associated_contact_id="4711"
    )

    await world.pull(hubspot_id)

    assert (await world.seat(hubspot_id)).contact_id == student.id


@pytest.mark.parametrize("choice", ["ours", "theirs"])
async def test_a_deleted_booking_frees_no_seat_by_itself(world, choice):
    """A person makes it anew there, or cancels it here."""
    student, exam = await world.student(sj_credits=1), await world.exam()
    hubspot_id = await world.booked(student, exam)
    await world.remote.archive(world.remote.bookings, hubspot_id)

    done = await world.pull(hubspot_id)

    assert done.missing == (hubspot_id,)
    assert [kind for kind, *_ in await conflicts(world.db)] == ["deleted"]
    assert (await world.seat(hubspot_id)).status == "Active"
    assert await world.resolve(choice) is None
    ((status, record),) = await query(world.db, "select status, hubspot_id from tallybook.bookings")
    assert (status, record) == (("Active", None) if choice == "ours" else ("Cancelled", hubspot_id))
    assert await world.credits(student) == (0 if choice == "ours" else 1)


async def test_a_restored_booking_is_no_conflict(world):
    """It is there again."""
    hubspot_id = await world.booked(await world.student(sj_credits=1), await world.exam())
    await world.remote.archive(world.remote.bookings, hubspot_id)
    await world.pull(hubspot_id)

    await world.remote.archive(world.remote.bookings, hubspot_id, restore=True)
    await world.pull(hubspot_id)

    assert await conflicts(world.db) == []


async def test_another_session_given_to_a_booking_there_is_written_back(world):
    """Whose seat it is was decided here; a person hears of it."""
    student, exam, other = await world.student(sj_credits=1), await world.exam(), await world.exam(days=9)
    hubspot_id = await world.booked(student, exam)
    (record,) = await world.mirror.client.batch_read(
        world.remote.bookings, [hubspot_id], properties=BOOKING_PROPERTIES, kind=CallKind.PULL, deadline_s=5
    )
    record.properties["associated_mock_exam"] = other.hubspot_id
    record.properties["associated_contact_id"] = student.hubspot_id

    await absorb_bookings(world.mirror, [record])

    seat = await world.seat(hubspot_id)
    assert (seat.mock_exam_id, seat.crm_mock_exam_hubspot_id) == (exam.id, other.hubspot_id)
    assert await conflicts(world.db) == [("both_changed", "mock_exam", exam.hubspot_id, other.hubspot_id)]
    assert await waiting(world.db) == {"booking": {seat.id}}


async def test_staff_cancel_there_while_the_student_moves_here(world):
    """The booking ends cancelled, in whichever session it was, with one credit given back."""
    for _ in range(6):
        student = await world.student(sj_credits=1)
        exam, other = await world.exam(days=5), await world.exam(days=6)
        hubspot_id = await world.booked(student, exam)
        seat = await world.seat(hubspot_id)
        await world.remote.edit(world.remote.bookings, hubspot_id, is_active="Cancelled")

        await asyncio.gather(
            world.pull(hubspot_id),
            move(world.db, student, {"id": seat.id}, other),
            return_exceptions=True,
        )

        assert (await world.seat(hubspot_id)).status == "Cancelled"
        assert await world.credits(student) == 1
        assert await conflicts(world.db) == []


async def test_the_last_seat_is_reinstated_or_booked_never_both(world):
    """HubSpot's Active and a student's click at the same moment."""
    won = []
    for _ in range(8):
        first, second = await world.student(sj_credits=1), await world.student(sj_credits=1)
        exam = await world.exam(capacity=1)
        hubspot_id = await world.booked(first, exam)
        await world.type(hubspot_id, is_active="Cancelled")
        await world.remote.edit(world.remote.bookings, hubspot_id, is_active="Active")

        _, booked = await asyncio.gather(
            world.pull(hubspot_id), book(world.db, second, exam), return_exceptions=True
        )

        live = (await world.seat(hubspot_id)).status == "Active"
        assert live == isinstance(booked, Refusal)
        assert (await ours(world.db, "mock_exams", exam.hubspot_id))["total_bookings"] == 1
        won.append("reinstated" if live else "booked")
    print(f"the last seat of eight: {won.count('reinstated')} reinstated, {won.count('booked')} booked")


async def test_a_hundred_commands_at_once_are_each_obeyed(world):
    """One refused command among them harms no other."""
    exam = await make_mock_exam(world.db, capacity=40)
    students = await make_contacts(world.db, 20, credits={"sj_credits": 1})
    link = "update tallybook.bookings b set hubspot_id = %s, crm_base = tallybook.booking_mirror(b)"
    link += " where id = %s"
    made = []
    for student in students:
        booked = await book(world.db, student, exam)
        made.append(
            await world.remote.booking(None, None, links=[], tallybook_id=booked["id"], is_active="Active")
        )
        await query(world.db, link, made[-1], booked["id"])
    for n, hubspot_id in enumerate(made):
        await world.remote.edit(
            world.remote.bookings, hubspot_id, is_active="Postponed" if n == 3 else "Cancelled"
        )

    await world.pull(*made)

    rows = await query(world.db, "select status, count(*) from tallybook.bookings group by 1 order by 1")
    assert rows == [("Active", 1), ("Cancelled", 19)]
    assert ("command_refused", "is_active", "Active", "Postponed") in await conflicts(world.db)


async def test_an_unpaid_cancellation_is_reinstated_unpaid(world):
    """An Admin Override stays one, and what was never given back is not spent twice."""
    student, exam = await make_contact(world.db, credits={"sj_credits": 1}), await world.exam()
    free = await book(world.db, student, exam, override="a guest")
    await cancel(world.db, None, free)
    kept = await book(world.db, await make_contact(world.db, credits={"sj_credits": 1}), exam)
    await cancel(world.db, None, kept, refund=False)

    for booking in (free, kept):
        ((refusal,),) = await query(
            world.db, "select (tallybook.reinstate_booking(%s, 'staff:1')).refusal", booking["id"]
        )
        assert refusal is None

    assert (await balances(world.db, student))["sj_credits"] == 1
    rows = await query(world.db, "select count(*) from tallybook.credit_entries where reason = 'booking'")
    assert rows == [(1,)]
