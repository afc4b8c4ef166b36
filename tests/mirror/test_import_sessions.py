"""Importing mock exams and bookings: taken as they are, refundable, and nothing happens the second time."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from support.factories import balances, book, cancel
from support.remote_sessions import RemoteSide, conflicts, contact_of, ours, query, waiting
from tallybook.domain.errors import CrmUnavailable, ExamFull
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.postgres.pool import Database
from tallybook.usecases.import_bookings import import_bookings
from tallybook.usecases.import_contacts import import_contacts
from tallybook.usecases.import_mock_exams import import_mock_exams
from tallybook.usecases.import_portal import import_portal
from tallybook.usecases.import_records import Imported, import_records
from tallybook.usecases.pull_bookings import pull_bookings
from tallybook.usecases.pull_mock_exams import pull_mock_exams


@pytest.fixture
def remote(portal, mirror):
    return RemoteSide(portal, mirror)


async def import_all(mirror):
    contacts = await import_contacts(mirror.db, mirror.client, mirror.catalog)
    return contacts, await import_mock_exams(mirror), await import_bookings(mirror)


async def everything(db):
    """All rows but the times of comparison."""
    found = []
    for table in ("mock_exams", "bookings", "credit_entries", "sync_conflicts", "outbox", "audit_log",
                  "mock_exam_prerequisites"):  # fmt: skip
        rows = await query(db, f"select to_jsonb(t) - array['synced_at']::text[] from tallybook.{table} t")
        found += sorted(rows)
    return found


async def test_a_session_with_its_booking_is_ours_afterwards(mirror, remote, db):
    """Type, local times, place, seats and the booking's copies of them."""
    student, exam = await remote.contact(sj_credits=2), await remote.exam(capacity=8)
    booking = await remote.booking(student, exam, booking_id="Situational Judgment-7-March 1, 2026")

    _, exams, bookings = await import_all(mirror)

    session, seat = await ours(db, "mock_exams", exam), await ours(db, "bookings", booking)
    assert (session["start_time"], session["end_time"], session["location"]) == (
        "09:00:00",
        "12:00:00",
        "Mississauga",
    )
    assert (session["capacity"], session["total_bookings"], session["activation"]) == (8, 1, "active")
    assert (seat["booking_id"], seat["status"], seat["booked_by"]) == (
        "Situational Judgment-7-March 1, 2026",
        "Active",
        "import",
    )
    assert (seat["exam_on"], seat["starts_at"]) == (session["exam_on"], session["starts_at"])
    assert (exams.read, exams.not_stored, bookings.read, bookings.paid) == (1, 0, 1, 1)


async def test_a_paid_booking_changes_no_balance_and_is_refundable(mirror, remote, db):
    """The opening credit and its spend cancel each other; cancelling gives one back."""
    student, exam = await remote.contact(sj_credits=2), await remote.exam()
    booking = await remote.booking(student, exam)

    await import_all(mirror)

    contact = await contact_of(db, student)
    assert (await balances(db, contact))["sj_credits"] == 2
    entries = await query(
        db, "select delta, reason from tallybook.credit_entries where booking_id is not null order by id"
    )
    assert entries == [(1, "import_opening"), (-1, "booking")]
    await cancel(db, contact, (await ours(db, "bookings", booking))["id"])
    assert (await balances(db, contact))["sj_credits"] == 3


@pytest.mark.parametrize("token", ["Admin Override", "Golden Token", None])
async def test_a_booking_nobody_paid_for_gets_no_entries(mirror, remote, db, token):
    """An unknown token is kept in HubSpot as it is; here it is a booking without a spend."""
    student, exam = await remote.contact(), await remote.exam()
    booking = await remote.booking(student, exam, **({"token_used": token} if token else {"token_used": ""}))

    await import_all(mirror)

    assert (await ours(db, "bookings", booking))["token_used"] == "Admin Override"
    assert await query(db, "select true from tallybook.credit_entries where booking_id is not null") == []


async def test_importing_again_changes_nothing(mirror, remote, db):
    """Neither rows nor entries nor conflicts nor what waits to be pushed."""
    first, second = await remote.contact(sj_credits=1), await remote.contact()
    exam = await remote.exam(capacity=1)
    discussion = await remote.exam(mock_type="Mock Discussion", days=9, requires=[exam])
    await remote.booking(first, exam, attendance="Yes", is_active="Completed")
    await remote.booking(second, exam, is_active="Cancelled", token_refunded="true")
    await remote.booking(second, discussion, token_used="Mock Discussion Token")
    await remote.exam(capacity=3, start_time="")
    await import_all(mirror)
    before = await everything(db)

    _, exams, bookings = await import_all(mirror)

    assert await everything(db) == before
    assert (exams.read, exams.not_stored, bookings.read, bookings.not_stored) == (3, 1, 3, 0)


async def test_more_bookings_than_seats_raise_the_capacity(mirror, remote, db):
    """Nobody loses a seat that was promised; HubSpot is told."""
    exam = await remote.exam(capacity=2)
    for _ in range(3):
        await remote.booking(await remote.contact(), exam)

    await import_all(mirror)

    session = await ours(db, "mock_exams", exam)
    assert (session["capacity"], session["total_bookings"]) == (3, 3)
    assert session["id"] in (await waiting(db))["mock_exam"]


async def test_clashing_bookings_are_taken_as_they_are(mirror, remote, db):
    """The old system kept no such rule: the later one is grandfathered, and counts as a seat."""
    student = await remote.contact()
    exam = await remote.exam(start=(9, 0), end=(12, 0))
    overlapping = await remote.exam(start=(11, 0), end=(13, 0), mock_type="Clinical Skills")
    for each in (exam, exam, overlapping):
        await remote.booking(student, each)

    await import_all(mirror)

    rows = await query(db, "select grandfathered from tallybook.bookings order by 1")
    assert rows == [(False,), (True,), (True,)]
    assert (await ours(db, "mock_exams", exam))["total_bookings"] == 2


async def test_a_cancelled_booking_is_history(mirror, remote, db):
    """It holds no seat, moves no credit, and what HubSpot says of its refund stays there."""
    student, exam = await remote.contact(sj_credits=4), await remote.exam()
    booking = await remote.booking(
        student, exam, is_active="Cancelled", token_refunded="true", token_refunded_at="1760000000000"
    )

    await import_all(mirror)

    seat = await ours(db, "bookings", booking)
    assert (seat["status"], seat["refunded"], seat["cancelled_at"][:10]) == ("Cancelled", None, "2025-10-09")
    assert (await balances(db, await contact_of(db, student)))["sj_credits"] == 4
    (mirrored,) = await query(
        db,
        "select tallybook.booking_mirror(b) ->> 'token_refunded', "
        "tallybook.booking_mirror(b) ->> 'token_refunded_at' from tallybook.bookings b",
    )
    assert mirrored == ("true", "1760000000000")


async def test_a_booking_id_somebody_has_gets_a_number(mirror, remote, db):
    """Two people with one student ID wrote the same text; both bookings stay."""
    exam = await remote.exam()
    text = "Situational Judgment-1599999-March 1, 2026"
    for _ in range(2):
        await remote.booking(await remote.contact(), exam, booking_id=text)

    await import_all(mirror)

    rows = await query(db, "select booking_id from tallybook.bookings order by 1")
    assert rows == [(text,), (f"{text} (2)",)]


async def test_labels_are_derived_by_our_rule(mirror, remote, db):
    """Contact, mock exam and the how-manieth of both; never what another program wrote."""
    student, exam = await remote.contact(), await remote.exam()
    await remote.booking(student, exam, is_active="Cancelled", idempotency_key="idem_old")
    await remote.booking(student, exam)

    await import_all(mirror)

    rows = await query(
        db,
        "select ordinal, idempotency_key = tallybook.booking_label("
        "contact_id, mock_exam_id, ordinal, mock_type) from tallybook.bookings order by 1",
    )
    assert rows == [(1, True), (2, True)]


async def test_a_contact_without_a_student_id_is_imported_with_its_booking(mirror, remote, db):
    """The import of contacts passes by those; a booking brings its own."""
    exam = await remote.exam()
    guest = await remote.create("contacts", {"email": "guest@example.com", "sj_credits": "1"})
    booking = await remote.booking(guest, exam)

    _, _, bookings = await import_all(mirror)

    assert bookings.not_stored == 0
    seat, contact = await ours(db, "bookings", booking), await ours(db, "contacts", guest)
    assert seat["contact_id"] == contact["id"]


async def test_bookings_that_join_nothing_wait_for_a_person(mirror, remote, db):
    """No contact, two contacts, a deleted contact, no session: each has a conflict that says so."""
    exam, student, other = await remote.exam(), await remote.contact(), await remote.contact()
    deleted = await remote.contact()
    made = [
        await remote.booking(student, exam, links=[(exam, 1303)]),
        await remote.booking(student, exam, links=[(student, 1301), (other, 1301), (exam, 1303)]),
        await remote.booking(deleted, exam, associated_contact_id=deleted),
        await remote.booking(student, exam, links=[(student, 1301)]),
    ]
    await remote.archive("contacts", deleted)

    _, _, bookings = await import_all(mirror)

    assert bookings.not_stored == 4
    expected = sorted(("handmade_refused", "record", None, each) for each in made)
    assert sorted(await conflicts(db)) == expected
    assert await query(db, "select true from tallybook.bookings") == []


async def test_a_session_that_cannot_take_place_waits_for_a_person(mirror, remote, db):
    """Without times, with a type nobody knows, with seats that are no number."""
    for properties in ({"start_time": ""}, {"mock_set": "", "location": ""}):
        await remote.exam(**properties)
    odd = await remote.exam()
    await remote.edit(remote.exams, odd, capacity="12abc", start_time="soon")

    exams = await import_mock_exams(mirror)

    assert exams.not_stored == 3
    assert [kind for kind, *_ in await conflicts(db)] == ["refused_value"] * 3
    assert await query(db, "select true from tallybook.mock_exams") == []
    await remote.edit(remote.exams, odd, capacity="12", start_time="9:00")
    exams = await import_mock_exams(mirror)
    assert exams.not_stored == 2
    assert len(await conflicts(db)) == 2


async def test_prerequisites_come_along(mirror, remote, db):
    """Wherever the required session stands in the list."""
    first = await remote.exam(days=3)
    discussion = await remote.exam(mock_type="Mock Discussion", days=9, requires=[first])

    await import_mock_exams(mirror)

    rows = "select e.hubspot_id, q.hubspot_id from tallybook.mock_exam_prerequisites p"
    rows += " join tallybook.mock_exams e on e.id = p.mock_exam_id"
    rows += " join tallybook.mock_exams q on q.id = p.prerequisite_id"
    assert await query(db, rows) == [(discussion, first)]


async def test_a_dry_run_writes_nothing(mirror, remote, db):
    """It counts what is there."""
    student, exam = await remote.contact(), await remote.exam(capacity=7)
    await remote.booking(student, exam)
    await remote.exam(start_time="")

    exams = await import_mock_exams(mirror, dry_run=True)
    bookings = await import_bookings(mirror, dry_run=True)

    assert (exams.read, exams.not_stored, exams.sessions, exams.seats) == (
        2,
        1,
        {"Situational Judgment": 1},
        7,
    )
    assert (bookings.read, bookings.statuses, bookings.paid) == (1, {"Active": 1}, 1)
    assert (
        await query(
            db, "select true from tallybook.mock_exams union all select true from tallybook.sync_state"
        )
        == []
    )


async def test_an_import_goes_on_where_it_stopped(mirror, remote, db):
    """With no time at all, a page is taken and the place remembered."""
    exam = await remote.exam(capacity=300)
    students = [await remote.contact() for _ in range(3)]
    for n in range(210):
        await remote.booking(students[n % 3], exam, is_active="Cancelled", booking_id=f"old-{n}")
    await import_mock_exams(mirror)

    first = await import_bookings(mirror, max_s=0)
    read = first.read
    while not first.complete:
        first = await import_bookings(mirror, max_s=0)
        read += first.read

    assert read == 210
    assert await query(db, "select count(*) from tallybook.bookings") == [(210,)]


async def test_pages_taken_at_once_may_have_the_same_texts(mirror, remote, db):
    """Neither sees what the other inserts before it commits; every booking gets a text of its own."""
    for _ in range(3):
        student, exam = await remote.contact(), await remote.exam(capacity=100)
        for n in range(100):
            await remote.booking(student, exam, is_active="Cancelled", booking_id=f"old-{n}")

    *_, bookings = await import_all(mirror)

    assert (bookings.read, bookings.not_stored) == (300, 0)
    texts = {text for (text,) in await query(db, "select booking_id from tallybook.bookings")}
    assert texts == {f"old-{n}{again}" for n in range(100) for again in ("", " (2)", " (3)")}


async def test_a_page_that_failed_is_read_again_although_the_next_was_taken(mirror, remote):
    """What is left is remembered in the order of the pages, whichever of two at once is done first."""
    student, exam = await remote.contact(), await remote.exam(capacity=100)
    for n in range(310):
        await remote.booking(student, exam, is_active="Cancelled", booking_id=f"old-{n}")
    taken: set[str] = set()
    begun = 0
    third_is_done = asyncio.Event()

    async def take(records):
        nonlocal begun
        begun += 1
        if begun == 2:
            await third_is_done.wait()
            raise CrmUnavailable(operation="take", problem="the second page fails")
        taken.update(record.id for record in records)
        if begun == 3:
            third_is_done.set()

    async def go_on():
        result = Imported()
        await import_records(mirror, MirroredType.BOOKING, result, take, properties=(), at_once=2)
        return result

    with pytest.raises(CrmUnavailable):
        await go_on()
    assert 0 < len(taken) < 310
    after = await go_on()

    assert after.resumed
    assert after.complete
    assert len(taken) == 310


async def test_an_imported_seat_counts_for_the_next_student(mirror, remote, db):
    """The last seat is taken by somebody who booked in the old system."""
    exam = await remote.exam(capacity=1)
    await remote.booking(await remote.contact(), exam)
    student = await remote.contact(sj_credits=1)
    await import_all(mirror)

    session = SimpleNamespace(id=(await ours(db, "mock_exams", exam))["id"])
    with pytest.raises(ExamFull):
        await book(db, await contact_of(db, student), session)


async def test_a_whole_import_goes_on_with_the_type_where_it_stopped(mirror, remote, db):
    """With no time at all each run takes one page; the first start is what counts as the beginning."""
    exam = await remote.exam()
    for _ in range(2):
        await remote.booking(await remote.contact(), exam)

    runs = [await import_portal(mirror, max_s=0)]
    while not runs[-1].complete:
        runs.append(await import_portal(mirror, max_s=0))

    (first,) = await query(db, "select value from tallybook.sync_state where name = 'first_import'")
    assert b"completed_at" in first[0]
    assert (await ours(db, "mock_exams", exam))["total_bookings"] == 2
    again = await import_portal(mirror)
    assert (again.skipped, again.contacts.read, again.bookings.read) == ((), 2, 2)
    assert await query(db, "select value from tallybook.sync_state where name = 'first_import'") == [first]


async def test_what_is_booked_by_hand_after_the_import_began_is_no_import(mirror, remote, db):
    """It gets no credit that somebody could be refunded."""
    student, exam = await remote.contact(), await remote.exam()
    await import_portal(mirror)
    await query(
        db,
        "update tallybook.sync_state set value = value || jsonb_build_object('started_at',"
        " clock_timestamp() - interval '1 hour') where name = 'first_import'",
    )
    booking = await remote.booking(student, exam)

    await import_bookings(mirror)

    seat = await ours(db, "bookings", booking)
    assert (seat["token_used"], seat["booked_by"]) == ("Admin Override", "hubspot:integration")
    assert await query(db, "select true from tallybook.credit_entries where booking_id is not null") == []


async def test_a_person_is_forgotten_whatever_the_text_of_an_imported_booking(mirror, remote, db):
    """Old codes follow no rule; the text that stays is by ours."""
    student, exam = await remote.contact(), await remote.exam()
    booking = await remote.booking(student, exam, booking_id="BK-1234567-ada")
    await import_all(mirror)
    contact = await contact_of(db, student)

    ((refusal,),) = await query(
        db, "select (tallybook.erase_contact(%s, 'asked for', 'staff:1')).refusal", contact.id
    )

    seat = await ours(db, "bookings", booking)
    assert refusal is None
    assert seat["booking_id"].startswith(f"Situational Judgment-{contact.id[:8]}-")
    await remote.edit(remote.bookings, booking, attending_location="Calgary")
    await pull_bookings(mirror, [booking], kind=CallKind.PULL)
    rows = await query(db, "select to_jsonb(c)::text from tallybook.sync_conflicts c")
    assert not [row for (row,) in rows if "ada" in row]


async def test_the_applications_role_has_every_right_this_needs(mirror, remote, superuser_uri):
    """Importing, moving a session, refusing a capacity, obeying commands: as the application connects."""
    joint = "&" if "?" in superuser_uri else "?"
    limited = Database(f"{superuser_uri}{joint}options=-c%20role%3Dtallybook_app")
    try:
        application = replace(mirror, db=limited)
        student, exam = await remote.contact(sj_credits=1), await remote.exam()
        discussion = await remote.exam(mock_type="Mock Discussion", days=9, requires=[exam])
        booking = await remote.booking(student, exam)
        await import_portal(application)
        await remote.edit(remote.exams, exam, capacity="0", exam_date="2027-03-01")
        await pull_mock_exams(application, [exam, discussion], kind=CallKind.PULL)
        for status in ("Cancelled", "Active", "Completed"):
            await remote.edit(remote.bookings, booking, is_active=status)
            await pull_bookings(application, [booking], kind=CallKind.PULL)
        await remote.archive(remote.exams, exam)
        await pull_mock_exams(application, [exam], kind=CallKind.PULL)

        assert await query(limited, "select current_user::text") == [("tallybook_app",)]
        assert (await ours(limited, "bookings", booking))["status"] == "Completed"
        assert {kind for kind, *_ in await conflicts(limited)} == {"deleted", "refused_value"}
    finally:
        await limited.close()
