"""Taking over from the system before: each difference is told, one side is believed, nothing counts twice."""

import asyncio
import dataclasses

import pytest

from support.commands import SECRET_KEY, CommandLine
from support.factories import book, cancel
from support.old_system import TABLES, Old, some_people
from support.push_world import BOOKING, TOKEN, world
from tallybook.domain.errors import SetupError
from tallybook.postgres.old_schema import opened_old_schema
from tallybook.usecases.import_portal import import_portal
from tallybook.usecases.take_over import Prefer, take_over

__all__ = ["world"]

CREDITS = "sj_credits", "cs_credits", "sjmini_credits", "mock_discussion_token", "shared_mock_credits"


@pytest.fixture
async def old(world):
    """Empty tables of the old system in the same database, and an empty portal."""
    await world.rows(TABLES)
    return Old(world)


async def fingerprint(world):
    return await world.rows(
        "select (select count(*) from tallybook.contacts), (select count(*) from tallybook.credit_entries),"
        " (select count(*) from tallybook.bookings), (select count(*) from tallybook.outbox),"
        " (select count(*) from tallybook.mock_exams), (select count(*) from tallybook.sync_state)"
    )


DIFFERENCES = {
    ("1600002", "sj_credits"): ("1", "4"),
    ("1600002", "cs_credits"): ("2", "0"),
    ("1600003", "record"): ("1600003", None),
    ("1600005", "sj_credits below zero"): ("-2", None),
    ("1600005", "sj_credits"): ("0", "1"),
}


@pytest.mark.parametrize(
    ("prefer", "second", "fifth"), [(Prefer.DATABASE, (1, 2), (0,)), (Prefer.HUBSPOT, (4, 0), (1,))]
)
async def test_each_difference_is_told_and_the_chosen_side_is_believed(old, world, prefer, second, fifth):
    """A dry run writes nothing and tells the same; after pushing both sides are equal."""
    ids = await some_people(old)
    before = await fingerprint(world)
    planned, told = await old.take_over(prefer, dry_run=True)
    assert told == DIFFERENCES
    assert (await fingerprint(world), planned.opened) == (before, 0)

    result, told = await old.take_over(prefer)
    assert told == DIFFERENCES
    assert result.not_taken == {}
    assert await old.numbers(1, "sj_credits") == (3,)
    assert await old.numbers(2, "sj_credits", "cs_credits") == second
    assert await old.numbers(3, "sj_credits") == (5,)
    assert await old.numbers(4, "cs_credits") == (6,)
    assert await old.numbers(5, "sj_credits") == fifth
    await old.expect_in_step()
    # The name staff keep in HubSpot is the one.
    names = await world.rows(
        "select distinct firstname from tallybook.contacts where hubspot_id = %s", ids[1]
    )
    assert names == [("Ada",)]
    # One opening entry each: nothing was counted twice.
    assert await world.rows("select reason, count(*) from tallybook.credit_entries group by reason") == [
        ("import", await world.value("select count(*) from tallybook.credit_entries"))
    ]


async def test_what_was_imported_while_observing_gets_the_old_numbers(old, world):
    """Unless somebody has decided here since: that person is named, and left as it is."""
    await some_people(old)
    await import_portal(world.mirror)
    assert await old.numbers(2, "sj_credits", "cs_credits") == (4, 0)
    await world.rows("select tallybook.grant_credits('student:1600005', 'sj_credits', 3, 'for a test')")
    result, _ = await old.take_over(Prefer.DATABASE)
    assert await old.numbers(2, "sj_credits", "cs_credits") == (1, 2)
    assert await old.numbers(5, "sj_credits") == (4,)
    assert list(result.not_taken) == ["1600005"]
    await old.expect_in_step()


async def test_bookings_that_hubspot_never_saw_become_ours_and_are_pushed(old, world):
    """Under the id they had; refundable once; those HubSpot has come with the import, once."""
    anna = await old.person(1, here={"sj_credits": 2}, there={"sj_credits": 2})
    first, second, third = [await old.remote.exam(days=days) for days in (7, 8, 9)]
    known = await old.remote.booking(anna, first)
    await old.booking(anna, first, hubspot_id=known)
    mine = await old.booking(anna, second)
    # Pushed long ago, but nobody noted the id.
    forgotten = await old.booking(anna, third)
    await old.remote.booking(
        anna, third, booking_id=forgotten["booking_id"], idempotency_key=forgotten["idempotency_key"]
    )
    result, told = await old.take_over(Prefer.DATABASE)
    assert result.bookings_by_outcome == {"same": 2, "taken": 1}
    assert told[mine["booking_id"], "record"] == ("Active", None)
    assert await world.value("select count(*) from tallybook.bookings") == 3
    assert await old.numbers(1, "sj_credits") == (2,)
    await old.expect_in_step()
    assert str(mine["id"]) in await world.records(BOOKING)
    await cancel(world.db, None, mine["id"])
    await cancel(world.db, None, mine["id"])
    assert await old.numbers(1, "sj_credits") == (3,)
    await old.expect_in_step()


@pytest.mark.parametrize("prefer", list(Prefer))
async def test_a_cancellation_that_never_reached_hubspot_stands_and_changes_no_number(old, world, prefer):
    """The old system gave the credit back in its numbers already."""
    anna = await old.person(1, here={"sj_credits": 3}, there={"sj_credits": 3})
    exam = await old.remote.exam()
    known = await old.remote.booking(anna, exam, token_used="Situational Judgment Token")
    row = await old.booking(anna, exam, hubspot_id=known, status="Cancelled")
    result, told = await old.take_over(prefer)
    assert told[row["booking_id"], "is_active"] == ("Cancelled", "Active")
    assert result.bookings_by_outcome == {"cancelled": 1}
    assert await old.numbers(1, "sj_credits") == (3,)
    await old.expect_in_step()
    assert (await world.properties(BOOKING, known))["is_active"] == "Cancelled"


async def test_a_booking_cancelled_in_hubspot_stays_cancelled(old, world):
    """Staff cancelled it there; the old database never heard of it."""
    anna = await old.person(1, here={"sj_credits": 3}, there={"sj_credits": 3})
    known = await old.remote.booking(anna, await old.remote.exam(), is_active="Cancelled")
    await old.booking(anna, "x", hubspot_id=known)
    result, _ = await old.take_over(Prefer.DATABASE)
    assert result.bookings_by_outcome == {"same": 1}
    assert await world.value("select status from tallybook.bookings") == "Cancelled"
    await old.expect_in_step()


async def test_what_cannot_be_taken_is_named(old, world):
    """A contact HubSpot has deleted, a student or a session nobody knows: a line each; the rest goes on."""
    gone = await old.person(1, here={"sj_credits": 9}, there={"sj_credits": 9})
    await old.remote.archive("contacts", gone)
    anna = await old.person(2, here={"sj_credits": 1}, there={"sj_credits": 1})
    exam = await old.remote.exam()
    nobody = await old.booking("404", exam, number=77)
    nowhere = await old.booking(anna, "404", number=2)
    result, _ = await old.take_over(Prefer.DATABASE)
    assert set(result.not_taken) == {"1600001", nobody["booking_id"], nowhere["booking_id"]}
    assert await old.numbers(2, "sj_credits") == (1,)
    await old.expect_in_step()


async def test_taking_over_happens_once(old, world):
    """Running it again later would undo what staff have changed since."""
    await some_people(old)
    await old.take_over(Prefer.DATABASE)
    with pytest.raises(SetupError, match="already"):
        await old.take_over(Prefer.DATABASE)
    assert (await old.take_over(Prefer.DATABASE, dry_run=True))[0].contacts == 4


async def test_one_that_was_interrupted_goes_on(old, world):
    """People opened before the interruption are neither opened nor corrected a second time."""
    await some_people(old)
    await world.fault(f"objects/.*/{world.mirror.client.connection.mock_exams_object}", status=401)
    with pytest.raises(SetupError):
        await old.take_over(Prefer.DATABASE)
    await world.portal.door.delete("/_simulator/faults")
    count = "select count(*) from tallybook.credit_entries where actor = 'take_over'"
    entries = await world.value(count)
    assert entries == 4
    await old.take_over(Prefer.DATABASE)
    assert await world.value(count) == entries
    assert await old.numbers(2, "sj_credits", "cs_credits") == (1, 2)
    await old.expect_in_step()


async def test_older_names_of_columns_are_read_and_missing_ones_are_not_needed(old, world):
    """Before they were renamed, and before half of them were added."""
    anna = await old.person(1, here={"sj_credits": 2}, there={"sj_credits": 2})
    exam = await old.remote.exam()
    await old.booking(anna, exam)
    for statement in (
        "alter table hubspot_sync.hubspot_bookings rename associated_mock_exam to mock_exam_id",
        "alter table hubspot_sync.hubspot_bookings rename associated_contact_id to contact_id",
        "alter table hubspot_sync.hubspot_bookings rename is_active to booking_status",
        "alter table hubspot_sync.hubspot_bookings drop token_refunded, drop token_refunded_at",
        "alter table hubspot_sync.hubspot_bookings drop attendance",
        "alter table hubspot_sync.hubspot_bookings drop dominant_hand, alter exam_date type date",
        "alter table hubspot_sync.hubspot_contact_credits drop shared_mock_credits, drop ndecc_exam_date",
    ):
        await world.rows(statement)
    result, _ = await old.take_over(Prefer.DATABASE)
    assert result.bookings_by_outcome == {"taken": 1}
    await old.expect_in_step()


async def test_tables_that_are_not_there_or_hidden_are_one_line(old, world):
    """No rows for want of rights is not an empty database."""
    with pytest.raises(SetupError, match=r"no nowhere\.hubspot_contact_credits"):
        async with opened_old_schema(world.uri, "nowhere") as tables:
            await take_over(world.mirror, tables, prefer=Prefer.DATABASE)
    await world.rows("alter table hubspot_sync.hubspot_contact_credits enable row level security")
    await world.rows("alter table hubspot_sync.hubspot_contact_credits force row level security")
    with pytest.raises(SetupError, match="Row level security"):
        await old.take_over(Prefer.DATABASE)


async def test_the_command_asks_whose_numbers_hold_and_tells_each_difference(old, world, tmp_path):
    """`import --from-old-schema`: a line for each difference; a dry run ends there."""
    await some_people(old)
    tallybook = CommandLine(
        tmp_path,
        {
            "DATABASE_URL": world.uri,
            "TALLYBOOK_SECRET_KEY": SECRET_KEY,
            "TALLYBOOK_LOGIN_CODE": "none",
            "HUBSPOT_BASE_URL": world.portal.url,
            "HS_PRIVATE_APP_TOKEN": TOKEN,
        },
    )
    command = ("import", "--from-old-schema", "hubspot_sync")
    assert "--prefer" in (await asyncio.to_thread(tallybook.error, *command))[1]
    command += ("--prefer", "database")
    shown = (await asyncio.to_thread(tallybook, *command, "--dry-run")).stdout
    assert "contact 1600002: sj_credits: database 1, HubSpot 4" in shown
    assert await world.value("select count(*) from tallybook.contacts") == 0
    assert "Taken over." in (await asyncio.to_thread(tallybook, *command)).stdout
    assert await old.numbers(2, "sj_credits") == (1,)


async def test_a_student_can_book_with_what_was_taken_over(old, world):
    """The numbers are the students' own from the first moment on."""
    await old.person(1, here={"sj_credits": 1}, there={"sj_credits": 4})
    await old.remote.exam()
    await old.take_over(Prefer.DATABASE)
    (contact,) = await world.rows("select id from tallybook.contacts")
    (exam,) = await world.rows("select id from tallybook.mock_exams")

    class Who:
        id = contact[0]

    class Where:
        id = exam[0]

    await book(world.db, Who, Where)
    assert await old.numbers(1, "sj_credits") == (0,)
    await old.expect_in_step()


async def test_what_the_old_system_books_while_we_observe_is_paid_and_refundable(old, world):
    """It is no booking made by hand: those begin with the first import that is not an observer's."""
    anna = await old.person(1, here={"sj_credits": 2}, there={"sj_credits": 2})
    exam = await old.remote.exam()
    observer = dataclasses.replace(world.mirror, observe=True)
    await import_portal(observer)
    known = await old.remote.booking(anna, exam)
    await old.booking(anna, exam, hubspot_id=known)
    await import_portal(observer)
    await old.take_over(Prefer.DATABASE)
    assert await world.rows("select token_used, status from tallybook.bookings") == [
        ("Situational Judgment Token", "Active")
    ]
    await cancel(world.db, None, known)
    assert await old.numbers(1, "sj_credits") == (3,)
