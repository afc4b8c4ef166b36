"""What a hostile reader tried: states and orders of events the functions have to survive."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from support.factories import (
    MIRRORED,
    balances,
    book,
    cancel,
    grant,
    make_contact,
    make_contacts,
    make_local_contact,
    make_mock_exam,
    move,
    remote_contact,
    seats_taken,
)
from tallybook.domain.errors import (
    BalanceTooLow,
    BookingNotFound,
    DuplicateBooking,
    ExamFull,
    ExamNotActive,
    ExamNotFound,
    IdempotencyInProgress,
    InsufficientCredits,
    LockTimeout,
    TimeConflict,
    Unauthenticated,
)
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.grant_credits import find_contact


async def _one(connection, query, params=None):
    return (await (await connection.execute(query, params)).fetchone())[0]


async def _waiting(owner):
    """Returns once somebody waits for a lock."""
    for _ in range(2000):
        if await _one(owner, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"):
            return
        await asyncio.sleep(0.005)
    raise AssertionError("nobody waits")


async def test_a_contact_merged_while_a_booking_waits_gets_no_seat(db, connect, database_uri, owner):
    """Who may book is decided after the wait for the contact, not before."""
    contact, survivor = await make_contacts(db, 2, credits={})
    await grant(db, contact, "sj_credits", 1)
    exam = await make_mock_exam(db)
    merging = await connect(database_uri)
    async with merging.transaction():
        await merging.execute("select from tallybook.contacts where id = %s for no key update", (contact.id,))
        attempt = asyncio.create_task(book(db, contact, exam))
        await _waiting(owner)
        await merging.execute(
            "insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor)"
            " values (%s, 'sj_credits', -1, 'merge_out', 'hubspot'), (%s, 'sj_credits', 1,"
            " 'merge_in', 'hubspot')",
            (contact.id, survivor.id),
        )
        await merging.execute(
            "update tallybook.contacts set merged_into = %s where id = %s", (survivor.id, contact.id)
        )
    with pytest.raises(Unauthenticated):
        await attempt
    assert await seats_taken(db, exam) == 0


async def test_the_last_seat_is_seen_after_the_wait(db, connect, database_uri, owner):
    """A booking that waited for the session counts what was committed meanwhile, not its first snapshot."""
    contact, other = await make_contacts(db, 2, credits={"sj_credits": 1})
    exam = await make_mock_exam(db, capacity=1)
    first = await connect(database_uri)
    async with first.transaction():
        await first.execute(
            "select tallybook.book_seat(%s, null, null, null, %s, null, null, 'x', null,"
            " 'x', null, null, null, false)",
            (other.id, str(exam.id)),
        )
        attempt = asyncio.create_task(book(db, contact, exam))
        await _waiting(owner)
    with pytest.raises(ExamFull):
        await attempt
    assert (await balances(db, contact))["sj_credits"] == 1


async def test_a_session_edited_during_the_wait_is_judged_as_it_is_now(db, connect, database_uri, owner):
    """A session moved onto another booking's time while a student waits is a conflict."""
    contact = await make_contact(db, credits={"sj_credits": 2, "cs_credits": 2})
    await book(db, contact, await make_mock_exam(db, mock_type="Clinical Skills", start="13:00", end="15:00"))
    exam = await make_mock_exam(db)
    editing = await connect(database_uri)
    async with editing.transaction():
        await editing.execute(
            "update tallybook.mock_exams set start_time = '14:00', end_time = '16:00',"
            " starts_at = (exam_on + time '14:00') at time zone time_zone,"
            " ends_at = (exam_on + time '16:00') at time zone time_zone where id = %s",
            (exam.id,),
        )
        attempt = asyncio.create_task(book(db, contact, exam))
        await _waiting(owner)
    with pytest.raises(TimeConflict):
        await attempt
    assert await balances(db, contact) | {"sj_credits": 2, "cs_credits": 1} == await balances(db, contact)


async def test_waiting_has_an_end(db, connect, database_uri):
    """A contact locked for long is LOCK_TIMEOUT, a key in use IDEMPOTENCY_IN_PROGRESS,"
    " both after two seconds."""
    locked, keyed = await make_contacts(db, 2, credits={"sj_credits": 1})
    exam = await make_mock_exam(db)
    holder = await connect(database_uri)
    started = asyncio.get_running_loop().time()
    async with holder.transaction(force_rollback=True):
        await holder.execute("select from tallybook.contacts where id = %s for update", (locked.id,))
        await holder.execute(
            "select tallybook.begin_request(%s, %s, 'POST /api/bookings/create', 'k', '1')",
            (f"student:{keyed.id}", keyed.id),
        )
        outcomes = await asyncio.gather(
            book(db, locked, exam), book(db, keyed, exam, key="k"), return_exceptions=True
        )
    assert [type(each) for each in outcomes] == [LockTimeout, IdempotencyInProgress]
    assert 1.9 <= asyncio.get_running_loop().time() - started < 4


async def test_two_absorbs_in_opposite_order_both_finish(db):
    """Batches over the same contacts lock them in one order, whatever order they came in."""
    contacts = await make_contacts(db, 40, credits={"sj_credits": 1})
    remotes = [
        remote_contact(
            hubspot_id=c.hubspot_id, student_id=c.student_id, email=c.email, credits={"sj_credits": 2}
        )
        for c in contacts
    ]
    await asyncio.gather(
        *(
            absorb_contacts(db, batch, first_reason="import")
            for batch in (remotes, remotes[::-1])
            for _ in range(3)
        )
    )
    assert (await balances(db, contacts[0]))["sj_credits"] == 2


async def test_a_contact_answered_twice_in_one_batch_counts_once(db):
    """HubSpot finds a person by a second address too; the number is added once, the newest answer stands."""
    now = datetime.now(UTC)
    older = remote_contact(
        hubspot_id="555", student_id="S1", email="a@example.com", credits={"sj_credits": 4}, updated_at=now
    )
    newer = remote_contact(
        hubspot_id="555",
        student_id="S1",
        email="b@example.com",
        credits={"sj_credits": 6},
        updated_at=now + timedelta(seconds=1),
    )
    ids = await absorb_contacts(db, [newer, older, newer], first_reason="import")
    async with db.connection() as connection:
        email = await _one(connection, "select email from tallybook.contacts")
        balance = await _one(
            connection, "select balance from tallybook.credit_balances where credit_type = 'sj_credits'"
        )
    assert (list(ids), email, balance) == (["555"], "b@example.com", 6)


async def test_a_late_answer_with_a_taken_address_does_not_stop_the_batch(db):
    """An old answer naming an address somebody newer has leaves the address, and the others are stored."""
    now = datetime.now(UTC)

    def remote(hubspot_id, email, minutes, **changes):
        at = now + timedelta(minutes=minutes)
        return remote_contact(
            hubspot_id=hubspot_id,
            student_id="S" + hubspot_id,
            email=email,
            credits={},
            updated_at=at,
            **changes,
        )

    await absorb_contacts(
        db, [remote("1", "one@example.com", 0), remote("2", "two@example.com", 0)], first_reason="import"
    )
    await absorb_contacts(db, [remote("1", "new@example.com", 10)], first_reason="import")
    stored = await absorb_contacts(
        db, [remote("2", "new@example.com", 5), remote("3", "three@example.com", 5)], first_reason="import"
    )
    assert set(stored) == {"2", "3"}
    async with db.connection() as connection:
        rows = await (
            await connection.execute("select hubspot_id, email from tallybook.contacts order by 1")
        ).fetchall()
    assert rows == [("1", "new@example.com"), ("2", "two@example.com"), ("3", "three@example.com")]


async def test_addresses_that_were_swapped_are_stored_swapped(db):
    """Two people exchange their addresses within one batch."""
    now = datetime.now(UTC)
    for round_, emails in enumerate([("a@example.com", "b@example.com"), ("b@example.com", "a@example.com")]):
        remotes = [
            remote_contact(
                hubspot_id=str(n), student_id=f"S{n}", email=email, credits={},
                updated_at=now + timedelta(minutes=round_),
            )
            for n, email in enumerate(emails, 1)
        ]  # fmt: skip
        await absorb_contacts(db, remotes, first_reason="import")
    async with db.connection() as connection:
        rows = await (
            await connection.execute("select hubspot_id, email from tallybook.contacts order by 1")
        ).fetchall()
    assert rows == [("1", "b@example.com"), ("2", "a@example.com")]


@pytest.mark.parametrize("ref", ["{0.id}", "5001", "student:old1", "email:old@example.com"])
async def test_a_merged_contact_is_found_by_everything_it_was_known_by(db, superuser, ref):
    """UUID, HubSpot id, student ID and address of the one that went lead to the one that stayed."""
    gone, survivor = await make_local_contact(db), await make_contact(db, credits={})
    await superuser.execute(
        "update tallybook.contacts set merged_into = %s where id = %s", (survivor.id, gone.id)
    )
    await superuser.execute(
        "insert into tallybook.contact_aliases (kind, value, contact_id) values"
        " ('hubspot_id', '5001', %(id)s),"
        " ('student_id', 'OLD1', %(id)s), ('email', 'old@example.com', %(id)s)",
        {"id": survivor.id},
    )
    assert await find_contact(db, ref.format(gone)) == survivor.id


@pytest.mark.broken_on_purpose
async def test_a_circle_of_merges_ends(db, superuser):
    """A broken merge is no endless loop."""
    one, two = await make_local_contact(db), await make_local_contact(db)
    await superuser.execute("set session_replication_role = replica")
    for a, b in ((one, two), (two, one)):
        await superuser.execute("update tallybook.contacts set merged_into = %s where id = %s", (b.id, a.id))
    assert isinstance(await find_contact(db, str(one.id)), UUID)


async def test_a_retired_type_can_be_refunded_and_not_booked(db, superuser):
    """What left the catalog takes no booking and no move, and gives credits back."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    exam, other = await make_mock_exam(db), await make_mock_exam(db, days=9)
    booking = await book(db, contact, exam)
    await superuser.execute(
        "update tallybook.mock_types set retired_at = now() where name = 'Situational Judgment'"
    )
    await superuser.execute("update tallybook.credit_types set retired_at = now() where name = 'sj_credits'")
    with pytest.raises(ExamNotActive):
        await book(db, contact, other)
    with pytest.raises(ExamNotActive):
        await move(db, contact, booking, other)
    assert (await cancel(db, contact, booking))["credits_restored"] == 1
    assert (await balances(db, contact))["sj_credits"] == 2


async def test_an_overdue_hold_gives_way_to_a_booking(db, owner):
    """Credits set aside too long are free again, and the dry run says so as well."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    exam = await make_mock_exam(db)
    await owner.execute(
        "insert into tallybook.credit_holds (contact_id, credit_type, credits, actor, expires_at)"
        " values (%s, 'sj_credits', 1, 'key:x', now() + interval '1 hour')",
        (contact.id,),
    )
    await owner.execute(
        "update tallybook.credit_balances set held = 1 where contact_id = %s and credit_type = 'sj_credits'",
        (contact.id,),
    )
    with pytest.raises(InsufficientCredits):
        await book(db, contact, exam)
    with pytest.raises(BalanceTooLow):
        await grant(db, contact, "sj_credits", -1)
    await owner.execute("update tallybook.credit_holds set expires_at = now()")
    assert (await book(db, contact, exam, dry_run=True))["dry_run"] is True
    assert (await book(db, contact, exam))["_outcome"] == "created"


async def test_a_dry_run_says_what_would_happen_and_does_nothing(db, owner):
    """Booking, moving and cancelling on trial leave no row behind, and no key."""
    contact = await make_contact(db, credits={"sj_credits": 2})
    exam, other = await make_mock_exam(db), await make_mock_exam(db, days=9)
    booking = await book(db, contact, exam)
    count = (
        "select (select count(*) from tallybook.bookings) + (select count(*) from tallybook.credit_entries)"
        " + (select sum(version) from tallybook.outbox) + (select count(*) from tallybook.audit_log)"
        " + (select count(*) from tallybook.idempotency_keys)"
    )
    before = await _one(owner, count)
    trial = await book(db, contact, other, dry_run=True, key="k")
    assert (trial["token_used"], trial["credits_after"]["sj_credits"]) == ("Situational Judgment Token", 0)
    assert (await move(db, contact, booking, other, dry_run=True, key="k"))["dry_run"] is True
    assert (await cancel(db, contact, booking, dry_run=True, key="k"))["credits_restored"] == 1
    assert await _one(owner, count) == before


@pytest.mark.parametrize(
    "ref", ["", "'", "0", "9" * 5000, "\x01", "%", "00000000-0000-0000-0000-000000000000", "null", "👩‍🎓"]
)
async def test_ids_that_name_nothing_find_nothing(db, ref):
    """Whatever text stands for an id, the answer is not found."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    with pytest.raises(BookingNotFound):
        await cancel(db, contact, ref)
    exam = await make_mock_exam(db)
    with pytest.raises(ExamNotFound):
        await book(db, contact, type(exam)(ref, None, exam.mock_type, exam.exam_on, None, None, 0))


async def test_another_students_booking_does_not_exist(db):
    """Neither cancelled nor moved nor told apart from one that is not there."""
    mine, theirs = await make_contacts(db, 2, credits={"sj_credits": 1})
    exam, other = await make_mock_exam(db), await make_mock_exam(db, days=9)
    booking = await book(db, theirs, exam)
    for ref in (booking["id"], booking["booking_id"]):
        with pytest.raises(BookingNotFound):
            await cancel(db, mine, ref)
        with pytest.raises(BookingNotFound):
            await move(db, mine, ref, other)


@pytest.mark.parametrize(("page", "limit"), [(1, 100), (2_147_483_647, 100), (21_474_837, 100)])
async def test_a_page_far_beyond_the_end_is_empty(db, page, limit):
    """page * limit does not overflow."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    await book(db, contact, await make_mock_exam(db))
    who = {"contact_id": contact.id, "epoch": 1, "student_id": None, "email": None}
    unlimited = {"limit_key": None, "limit_per_min": None}
    bookings = await db.answer(
        "list_bookings", who | unlimited | {"filter": "all", "page": page, "limit": limit}
    )
    history = await db.answer(
        "usage_history", who | unlimited | {"page": page, "per_page": limit, "reason": None}
    )
    assert (b'"bookings": []' in bookings.data) == (page > 1)
    assert (b'"data": []' in history.data) == (page > 1)


async def test_two_students_with_one_student_id_get_different_texts(db):
    """A student ID is not unique; 20 bookings at once under the same text get 20 texts."""
    contacts = [await make_contact(db, credits={"sj_credits": 1}, student_id="TWINS") for _ in range(12)]
    exam = await make_mock_exam(db, capacity=12)
    booked = await asyncio.gather(*(book(db, contact, exam) for contact in contacts))
    assert len({each["booking_id"] for each in booked}) == 12


async def test_a_key_belongs_to_one_contact_and_route(db):
    """The same key of another student books for that student."""
    one, two = await make_contacts(db, 2, credits={"sj_credits": 2})
    exam = await make_mock_exam(db)
    first = await book(db, one, exam, key="k")
    second = await book(db, two, exam, key="k")
    again = await book(db, one, exam, key="k")
    assert first["id"] != second["id"]
    assert (again["id"], again["_replayed"]) == (first["id"], True)
    with pytest.raises(DuplicateBooking):
        await book(db, one, exam, key="another")


async def test_balances_of_all_mirrored_types_are_known_after_one_answer(db):
    """All credit types of a contact are read and written together."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    assert set(await balances(db, contact)) == set(MIRRORED)
