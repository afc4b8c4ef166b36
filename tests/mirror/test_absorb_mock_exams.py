"""Mock exams edited in HubSpot: taken where our rules allow, shown to a person where they do not."""

import asyncio
import json
from datetime import datetime, timedelta

import pytest

from support.factories import book, cancel, make_contact, make_contacts, make_mock_exam
from support.remote_sessions import RemoteSide, conflicts, ours, query, waiting
from tallybook.domain.errors import DuplicateBooking, ExamFull, TimeConflict
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.session_fields import MOCK_EXAM_PROPERTIES
from tallybook.usecases.absorb_mock_exams import absorb_mock_exams
from tallybook.usecases.pull_mock_exams import pull_mock_exams
from tallybook.usecases.pull_prerequisites import pull_prerequisites


@pytest.fixture
def remote(portal, mirror):
    return RemoteSide(portal, mirror)


async def pull(mirror, *ids):
    return await pull_mock_exams(mirror, ids, kind=CallKind.PULL)


async def pulled_exam(mirror, remote, **properties):
    """A session made in HubSpot and read; our row with attributes."""
    hubspot_id = await remote.exam(**properties)
    await pull(mirror, hubspot_id)
    await query(mirror.db, "delete from tallybook.outbox")
    return hubspot_id, await exam(mirror.db, hubspot_id)


class Row:
    def __init__(self, found):
        self.__dict__.update(found)


async def exam(db, hubspot_id):
    return Row(await ours(db, "mock_exams", hubspot_id))


async def is_waiting(db, task):
    """Whether somebody waits for a lock, once that is so; not when the task ends without."""
    for _ in range(500):
        if task.done() or await query(db, "select pid from pg_locks where not granted"):
            return not task.done()
        await asyncio.sleep(0.01)
    return False


async def resolve(db, choice, *, value=None, kind=None):
    """Decides the only open conflict, or the one of this kind; the refusal or None."""
    rows = await query(
        db,
        "select (r).refusal from (select tallybook.resolve_conflict(c.id, %s, %s, 'staff:1', 'because') as r"
        " from tallybook.sync_conflicts c"
        " where c.resolved_at is null and (%s::text is null or c.kind = %s)) x",
        choice,
        value,
        kind,
        kind,
    )
    assert len(rows) == 1
    return rows[0][0]


async def test_each_field_staff_change_there_is_changed_here(mirror, remote, db):
    """Capacity, set, address, place; and it costs no push."""
    hubspot_id, _ = await pulled_exam(mirror, remote, mock_set="A")
    await remote.edit(
        remote.exams, hubspot_id, capacity="25", mock_set="C", address="1 Main St", location="Online"
    )

    await pull(mirror, hubspot_id)

    found = await exam(db, hubspot_id)
    assert (found.capacity, found.mock_set, found.address, found.location) == (25, "C", "1 Main St", "Online")
    assert await waiting(db) == {}
    assert await conflicts(db) == []


async def test_an_unchanged_session_costs_one_note_of_the_comparison(mirror, remote, db):
    """Only when it was compared, and nothing else of the row."""
    hubspot_id, before = await pulled_exam(mirror, remote)
    (version,) = await query(db, "select xmin::text from tallybook.mock_exams")

    done = await pull(mirror, hubspot_id)

    after = await exam(db, hubspot_id)
    assert (done.read, done.absorbed) == (1, 1)
    assert after.synced_at > before.synced_at
    before.synced_at = after.synced_at
    assert vars(before) == vars(after)
    assert await query(db, "select true from tallybook.audit_log where action <> 'mock_exam.met'") == []
    assert await query(db, "select xmin::text from tallybook.mock_exams") != [version]


async def test_an_older_answer_changes_nothing(mirror, remote, db):
    """Two workers read at different times; the newer one came first."""
    hubspot_id, _ = await pulled_exam(mirror, remote)
    await remote.edit(remote.exams, hubspot_id, capacity="12")
    (older,) = await mirror.client.batch_read(
        remote.exams, [hubspot_id], properties=MOCK_EXAM_PROPERTIES, kind=CallKind.PULL, deadline_s=5
    )
    await remote.edit(remote.exams, hubspot_id, capacity="14")
    await pull(mirror, hubspot_id)

    done = await absorb_mock_exams(mirror, [older])

    assert done.absorbed == 1
    assert (await exam(db, hubspot_id)).capacity == 14


async def test_our_count_of_bookings_is_written_over_theirs(mirror, remote, db):
    """Whatever a workflow of the portal has put there."""
    hubspot_id, found = await pulled_exam(mirror, remote)
    await remote.edit(remote.exams, hubspot_id, total_bookings="7")

    await pull(mirror, hubspot_id)

    assert (await exam(db, hubspot_id)).total_bookings == 0
    assert await waiting(db) == {"mock_exam": {found.id}}
    assert await conflicts(db) == []


async def test_a_capacity_below_the_seats_sells_no_more_and_takes_no_seat(mirror, remote, db):
    """Ours becomes the seats taken; theirs waits; ours, theirs and a third value each resolve it."""
    hubspot_id, found = await pulled_exam(mirror, remote, capacity=10)
    students = await make_contacts(db, 4, credits={"sj_credits": 1})
    for student in students[:3]:
        await book(db, student, found)
    await remote.edit(remote.exams, hubspot_id, capacity="2")

    await pull(mirror, hubspot_id)

    assert (await exam(db, hubspot_id)).capacity == 3
    assert await conflicts(db) == [("refused_value", "capacity", "3", "2")]
    with pytest.raises(ExamFull):
        await book(db, students[3], found)
    assert await resolve(db, "theirs") == "CAPACITY_BELOW_BOOKED"
    assert await resolve(db, "value", value="5") is None
    after = await exam(db, hubspot_id)
    assert (after.capacity, after.crm_base["capacity"], await conflicts(db)) == (5, "2", [])
    assert found.id in (await waiting(db))["mock_exam"]


async def test_a_capacity_typed_back_after_one_that_was_refused_counts(mirror, remote, db):
    """Also the number on which both sides agreed before: ours was lowered meanwhile, by nobody's wish."""
    hubspot_id, found = await pulled_exam(mirror, remote, capacity=10)
    students = await make_contacts(db, 3, credits={"sj_credits": 1})
    for student in students:
        await book(db, student, found)
    for typed in ("2", "1", "10"):
        await remote.edit(remote.exams, hubspot_id, capacity=typed)
        await pull(mirror, hubspot_id)

    after = await exam(db, hubspot_id)
    assert (after.capacity, after.crm_base["capacity"], await conflicts(db)) == (10, "10", [])


async def test_a_choice_that_is_refused_changes_nothing(mirror, remote, db):
    """A third value below the seats, where both had changed the capacity."""
    hubspot_id, found = await pulled_exam(mirror, remote, capacity=10)
    for student in await make_contacts(db, 2, credits={"sj_credits": 1}):
        await book(db, student, found)
    await query(db, "update tallybook.mock_exams set capacity = 15, updated_at = clock_timestamp()")
    await remote.edit(remote.exams, hubspot_id, capacity="20")
    await pull(mirror, hubspot_id)

    assert await resolve(db, "value", value="1") == "CAPACITY_BELOW_BOOKED"

    assert (await exam(db, hubspot_id)).capacity == 20
    assert await conflicts(db) == [("both_changed", "capacity", "15", "20")]


async def test_a_refused_capacity_is_taken_once_the_seats_allow(mirror, remote, db):
    """Staff had decided; nobody has to decide again."""
    hubspot_id, found = await pulled_exam(mirror, remote, capacity=10)
    students = await make_contacts(db, 2, credits={"sj_credits": 1})
    seats = [await book(db, student, found) for student in students]
    await remote.edit(remote.exams, hubspot_id, capacity="1")
    await pull(mirror, hubspot_id)
    await cancel(db, students[0], seats[0])
    await pull(mirror, hubspot_id)

    assert (await exam(db, hubspot_id)).capacity == 1
    assert await conflicts(db) == []


@pytest.mark.parametrize(
    ("field", "typed"),
    [
        ("capacity", "12abc"),
        ("capacity", str(2**40)),
        ("capacity", "-3"),
        ("capacity", ""),
        ("mock_set", "Z"),
        ("mock_type", "Yoga"),
        ("is_active", "perhaps"),
        ("scheduled_activation_datetime", "soon"),
        ("exam_date", "tomorrow"),
        ("start_time", "morning"),
        ("end_time", ""),
        ("location", ""),
    ],
)
async def test_what_cannot_be_read_is_neither_taken_nor_lost(mirror, remote, db, field, typed):
    """Ours stays, theirs waits, and HubSpot's is not written over until a person says so."""
    hubspot_id, before = await pulled_exam(mirror, remote, mock_set="A")
    await remote.edit(remote.exams, hubspot_id, **{field: typed})

    await pull(mirror, hubspot_id)

    after = await exam(db, hubspot_id)
    (found,) = await conflicts(db)
    assert (found[0], found[1], found[3]) == ("refused_value", field, typed or None)
    assert (after.capacity, after.starts_at, after.mock_type) == (
        before.capacity,
        before.starts_at,
        before.mock_type,
    )
    assert await waiting(db) == {}
    assert await resolve(db, "ours") is None
    assert await waiting(db) == {"mock_exam": {before.id}}


async def test_a_moved_session_moves_its_bookings(mirror, remote, db):
    """Date and times of each live booking, in one transaction; its text stays what people know."""
    hubspot_id, found = await pulled_exam(mirror, remote)
    student = await make_contact(db, credits={"sj_credits": 1})
    booked = await book(db, student, found)
    on = datetime.fromisoformat(found.exam_on).date() + timedelta(days=2)
    await remote.schedule(hubspot_id, on=on, start=(13, 0), end=(16, 30))

    await pull(mirror, hubspot_id)

    after = await exam(db, hubspot_id)
    ((seat,),) = await query(db, "select to_jsonb(b) from tallybook.bookings b")
    seat = json.loads(seat)
    assert (after.exam_on, after.start_time, after.end_time) == (on.isoformat(), "13:00:00", "16:30:00")
    assert (seat["exam_on"], seat["starts_at"], seat["ends_at"]) == (
        on.isoformat(),
        after.starts_at,
        after.ends_at,
    )
    assert seat["booking_id"] == booked["booking_id"]


async def test_a_date_changed_alone_keeps_the_clock(mirror, remote, db):
    """People change the date and leave the milliseconds; ours are written there."""
    hubspot_id, found = await pulled_exam(mirror, remote)
    on = datetime.fromisoformat(found.exam_on).date() + timedelta(days=1)
    await remote.edit(remote.exams, hubspot_id, exam_date=on.isoformat())

    await pull(mirror, hubspot_id)

    after = await exam(db, hubspot_id)
    assert (after.exam_on, after.start_time, after.end_time) == (on.isoformat(), "09:00:00", "12:00:00")
    assert await waiting(db) == {"mock_exam": {found.id}}


@pytest.mark.parametrize(("hour", "other_type"), [(9, "Situational Judgment"), (11, "Clinical Skills")])
async def test_a_time_that_gives_a_student_two_bookings_is_refused(mirror, remote, db, hour, other_type):
    """One type on one day, or two at once: the session stays where it is until somebody decides."""
    hubspot_id, found = await pulled_exam(mirror, remote, days=7)
    other = await make_mock_exam(db, mock_type=other_type, days=9, start="09:00", end="12:00")
    student = await make_contact(db, credits={"sj_credits": 2, "cs_credits": 1})
    await book(db, student, found)
    taken = await book(db, student, other)
    await remote.schedule(hubspot_id, on=other.exam_on, start=(hour, 0), end=(hour + 3, 0))

    await pull(mirror, hubspot_id)

    after = await exam(db, hubspot_id)
    assert (after.exam_on, after.starts_at) == (found.exam_on, found.starts_at)
    rows = await query(db, "select field, details ->> 'code' from tallybook.sync_conflicts order by 1")
    code = "DUPLICATE_BOOKING" if other_type == found.mock_type else "TIME_CONFLICT"
    changed = ["end_time", "exam_date", "start_time"]
    assert rows == [(field, code) for field in changed]
    await cancel(db, student, taken)
    (conflict,) = await query(
        db, "select id from tallybook.sync_conflicts where field = 'exam_date' and resolved_at is null"
    )
    ((refusal,),) = await query(
        db, "select (tallybook.resolve_conflict(%s, 'theirs', null, 'staff:1', 'ok')).refusal", conflict[0]
    )
    assert refusal is None
    assert (await exam(db, hubspot_id)).exam_on == other.exam_on.isoformat()
    assert await conflicts(db) == []


async def test_both_changed_another_part_of_the_schedule(mirror, remote, db):
    """Our start and their end: both stand, at the instants they mean together."""
    hubspot_id, found = await pulled_exam(mirror, remote)
    await query(
        db,
        "update tallybook.mock_exams set start_time = '08:00', starts_at = starts_at - interval '1 hour',"
        " updated_at = clock_timestamp()",
    )
    on = datetime.fromisoformat(found.exam_on).date()
    await remote.schedule(hubspot_id, on=on, start=(9, 0), end=(13, 0))

    await pull(mirror, hubspot_id)

    after = await exam(db, hubspot_id)
    assert (after.start_time, after.end_time) == ("08:00:00", "13:00:00")
    assert datetime.fromisoformat(after.ends_at) - datetime.fromisoformat(after.starts_at) == timedelta(
        hours=5
    )
    assert await conflicts(db) == []


async def test_where_both_changed_staff_there_win_and_ours_is_shown(mirror, remote, db):
    """The other value waits for somebody who may want it back."""
    hubspot_id, _ = await pulled_exam(mirror, remote, capacity=10)
    await query(db, "update tallybook.mock_exams set capacity = 15, updated_at = clock_timestamp()")
    await remote.edit(remote.exams, hubspot_id, capacity="20")

    await pull(mirror, hubspot_id)

    assert (await exam(db, hubspot_id)).capacity == 20
    assert await conflicts(db) == [("both_changed", "capacity", "15", "20")]
    assert await resolve(db, "ours") is None
    assert (await exam(db, hubspot_id)).capacity == 15
    assert await waiting(db) != {}


async def test_a_value_we_sent_is_no_edit_when_it_comes_back(mirror, remote, db):
    """A write that lands late, after we have gone on."""
    hubspot_id, found = await pulled_exam(mirror, remote, capacity=10)
    await query(
        db,
        'update tallybook.mock_exams set capacity = 15, crm_sent = \'{"capacity": ["12", "15"]}\'',
    )
    await remote.edit(remote.exams, hubspot_id, capacity="12")

    await pull(mirror, hubspot_id)

    assert (await exam(db, hubspot_id)).capacity == 15
    assert (await waiting(db), await conflicts(db)) == ({"mock_exam": {found.id}}, [])


async def test_closing_a_session_cancels_nothing(mirror, remote, db):
    """`false` closes it for new students, whatever its case."""
    hubspot_id, found = await pulled_exam(mirror, remote)
    student = await make_contact(db, credits={"sj_credits": 1})
    await book(db, student, found)
    await remote.edit(remote.exams, hubspot_id, is_active="FALSE")

    await pull(mirror, hubspot_id)

    after = await exam(db, hubspot_id)
    assert (after.activation, after.total_bookings) == ("inactive", 1)


async def test_a_deleted_session_without_seats_is_archived_and_comes_back(mirror, remote, db):
    """Restoring it there restores it here."""
    hubspot_id, _ = await pulled_exam(mirror, remote)
    await remote.archive(remote.exams, hubspot_id)
    done = await pull(mirror, hubspot_id)
    assert done.missing == (hubspot_id,)
    assert (await exam(db, hubspot_id)).archived_at is not None

    await remote.archive(remote.exams, hubspot_id, restore=True)
    await pull(mirror, hubspot_id)

    assert (await exam(db, hubspot_id)).archived_at is None


@pytest.mark.parametrize("choice", ["ours", "theirs"])
async def test_a_deleted_session_with_seats_frees_nothing_by_itself(mirror, remote, db, choice):
    """A person makes it anew there, or cancels everybody here with their credits."""
    hubspot_id, found = await pulled_exam(mirror, remote)
    students = await make_contacts(db, 2, credits={"sj_credits": 1})
    for student in students:
        await book(db, student, found)
    await query(db, "update tallybook.bookings set crm_mock_exam_hubspot_id = %s", hubspot_id)
    await remote.archive(remote.exams, hubspot_id)

    await pull(mirror, hubspot_id)

    assert [kind for kind, *_ in await conflicts(db)] == ["deleted"]
    assert (await exam(db, hubspot_id)).archived_at is None
    assert await resolve(db, choice) is None
    ((left, balance),) = await query(
        db,
        "select (select count(*) from tallybook.bookings where status = 'Active'),"
        " (select sum(balance)::integer from tallybook.credit_balances where credit_type = 'sj_credits')",
    )
    assert (left, balance) == ((2, 0) if choice == "ours" else (0, 2))
    ((record, archived),) = await query(
        db, "select hubspot_id, archived_at is not null from tallybook.mock_exams"
    )
    assert (record, archived) == ((None, False) if choice == "ours" else (hubspot_id, True))
    assert await conflicts(db) == []


async def test_prerequisites_added_and_removed_there_are_so_here(mirror, remote, db):
    """Merged as a set: what was added here stays."""
    first, _ = await pulled_exam(mirror, remote, days=2)
    second, _ = await pulled_exam(mirror, remote, days=3, mock_type="Clinical Skills")
    discussion, found = await pulled_exam(
        mirror, remote, days=9, mock_type="Mock Discussion", requires=[first]
    )
    here = await make_mock_exam(db, days=4)
    await query(db, "insert into tallybook.mock_exam_prerequisites values (%s, %s)", found.id, here.id)
    path = f"/crm/associations/2026-09/{remote.exams}/{remote.exams}/batch"
    token = {"Authorization": "Bearer pat-test"}
    link = {"from": {"id": discussion}, "to": {"id": second}}
    types = [{"associationCategory": "USER_DEFINED", "associationTypeId": 1340}]
    await remote.door.post(f"{path}/create", headers=token, json={"inputs": [{**link, "types": types}]})
    gone = {"from": {"id": discussion}, "to": [{"id": first}]}
    await remote.door.post(f"{path}/archive", headers=token, json={"inputs": [gone]})

    await pull_prerequisites(mirror, [discussion], kind=CallKind.RECONCILE)

    rows = await query(db, "select prerequisite_id::text from tallybook.mock_exam_prerequisites order by 1")
    assert [row[0] for row in rows] == sorted([str(here.id), (await exam(db, second)).id])


async def test_a_capacity_typed_down_while_thirty_book(mirror, remote, db):
    """Whoever comes first: no seat is oversold, none is lost, and the number typed is not forgotten."""
    hubspot_id, found = await pulled_exam(mirror, remote, capacity=40)
    students = await make_contacts(db, 30, credits={"sj_credits": 1})

    async def attempt(student):
        try:
            await book(db, student, found)
        except ExamFull:
            return False
        return True

    async def type_down():
        await asyncio.sleep(0.02)
        await remote.edit(remote.exams, hubspot_id, capacity="10")
        await pull(mirror, hubspot_id)

    *booked, _ = await asyncio.gather(*(attempt(student) for student in students), type_down())

    after = await exam(db, hubspot_id)
    print(f"{sum(booked)} of 30 booked before the capacity fell to 10; now {after.capacity}")
    assert after.total_bookings == sum(booked)
    assert after.capacity == max(10, after.total_bookings if await conflicts(db) else 10)


async def test_sessions_move_while_their_students_book_elsewhere(mirror, remote, db):
    """Either the move is refused or the booking is: never two at once."""
    hubspot_id, found = await pulled_exam(mirror, remote, days=7)
    students = await make_contacts(db, 12, credits={"sj_credits": 1, "cs_credits": 1})
    for student in students[:6]:
        await book(db, student, found)
    other = await make_mock_exam(
        db, mock_type="Clinical Skills", days=9, start="10:00", end="12:00", capacity=20
    )

    async def attempt(student):
        try:
            await book(db, student, other)
        except (TimeConflict, DuplicateBooking):
            return "refused"
        return "booked"

    await remote.schedule(hubspot_id, on=other.exam_on, start=(9, 0), end=(11, 0))
    outcomes = await asyncio.gather(*(attempt(student) for student in students), pull(mirror, hubspot_id))

    moved = (await exam(db, hubspot_id)).exam_on == other.exam_on.isoformat()
    print(f"moved: {moved}; {outcomes.count('booked')} booked, {outcomes.count('refused')} refused")
    assert moved != bool(await conflicts(db))
    assert outcomes.count("refused") == 0 or moved


async def test_one_bad_record_harms_no_other(mirror, remote, db):
    """Ninety-nine are taken beside one that cannot be."""
    made = [await remote.exam(days=1 + n % 30) for n in range(20)]
    await remote.edit(remote.exams, made[7], end_time="")

    done = await pull(mirror, *made)

    assert (done.read, done.absorbed, list(done.errors)) == (20, 19, [made[7]])
    assert await query(db, "select count(*) from tallybook.mock_exams") == [(19,)]


async def test_a_move_waits_for_its_students_before_it_takes_the_session(
    mirror, remote, db, connect, database_uri
):
    """While one of them is busy, others still get seats in that session: contacts are locked before it."""
    hubspot_id, found = await pulled_exam(mirror, remote)
    busy, other = await make_contacts(db, 2, credits={"sj_credits": 1})
    await book(db, busy, found)
    on = datetime.fromisoformat(found.exam_on).date() + timedelta(days=1)
    await remote.schedule(hubspot_id, on=on, start=(9, 0), end=(12, 0))
    elsewhere = await connect(database_uri)
    await elsewhere.execute("begin")
    await elsewhere.execute("select true from tallybook.contacts where id = %s for no key update", (busy.id,))

    moving = asyncio.create_task(pull(mirror, hubspot_id))
    assert await is_waiting(db, moving)
    await book(db, other, found)
    assert not moving.done()
    await elsewhere.execute("commit")
    await moving

    rows = await query(db, "select exam_on from tallybook.bookings")
    assert rows == [(on,), (on,)]
