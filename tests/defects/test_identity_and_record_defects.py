"""Who acts, what is written down about it, and what must stay whole, each under the rule it broke."""

import asyncio
import json
from contextlib import suppress

import psycopg
import pytest

from support.factories import (
    balances,
    book,
    cancel,
    make_contact,
    make_contacts,
    make_mock_exam,
    move,
    remote_contact,
    student,
)
from tallybook.domain.errors import (
    AmbiguousContact,
    ContactNotFound,
    ExamFull,
    TallybookError,
    Unauthenticated,
    ValidationError,
)
from tallybook.postgres.pool import Database
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.book_seat import book_seat, book_with_override
from tallybook.usecases.cancel_booking import cancel_as_staff
from tallybook.usecases.grant_credits import grant_credits
from tallybook.usecases.show_student import show_student

NOBODY_IS_MISSING = None


async def rows(connection, statement, *values):
    cursor = await connection.execute(statement, values)
    return await cursor.fetchall()


async def grant(db, contact, **changes):
    given = {"credit_type": "sj_credits", "credits": 1, "reason": "for a test", "actor": "cli:test"}
    return await grant_credits(db, contact=contact, **given | changes)


async def test_what_is_paid_back_is_what_was_paid(db):
    """A7: the credit type comes from the ledger; no parameter of a cancellation names one."""
    ada = await make_contact(db, credits={"cs_credits": 3, "shared_mock_credits": 1})
    exam = await make_mock_exam(db)
    booking = await book(db, ada, exam)

    cancelled = await cancel(db, None, booking)

    assert (booking["token_used"], cancelled["credit_type"]) == ("Shared Token", "shared_mock_credits")
    assert (await balances(db, ada))["cs_credits"] == 3


async def test_a_token_ends_with_its_session(db, owner):
    """A9: what a credential may do is read at each request, so a revocation counts at once."""
    ada = await make_contact(db, credits={"sj_credits": 1})
    asking = {"caller": student(ada, epoch=1), "pair": None}
    await show_student(db, NOBODY_IS_MISSING, **asking)

    await owner.execute("update tallybook.contacts set session_epoch = 2 where id = %s", (ada.id,))

    with pytest.raises(Unauthenticated):
        await show_student(db, NOBODY_IS_MISSING, **asking)


@pytest.mark.parametrize(
    "ref",
    ["7/../../9", "1' or '1'='1", "student:A B", "email:", "", "x" * 10_000],
    ids=["path", "quote", "space", "empty e-mail", "nothing", "10 kB"],
)
async def test_a_contact_is_never_put_together_from_text(db, ref):
    """A10: text that is no id of a contact is refused and reaches nothing."""
    with pytest.raises((ContactNotFound, ValidationError)):
        await grant(db, ref)


@pytest.mark.parametrize("reason", ["", "   "])
async def test_nobody_changes_a_balance_without_a_reason(db, reason):
    """A10: a correction says why."""
    ada = await make_contact(db, credits={"sj_credits": 1})
    with pytest.raises(ValidationError):
        await grant(db, str(ada.id), reason=reason)
    assert (await balances(db, ada))["sj_credits"] == 1


async def test_every_change_of_credits_and_bookings_names_who_did_it(db, owner):
    """A10, A20, A46: ledger and audit log name the real actor, never a fixed address."""
    ada = await make_contact(db, credits={"sj_credits": 2})
    here, there = await make_mock_exam(db), await make_mock_exam(db, days=8)
    await grant(db, str(ada.id), actor="cli:grace", reason="a present")
    booking = await book(db, ada, here)
    await move(db, ada, booking, there)
    await cancel_as_staff(db, booking=booking["id"], actor="cli:hopper", reason="ill", refund=None)

    entries = await rows(
        owner,
        "select reason, actor from tallybook.credit_entries where contact_id = %s"
        " and credit_type = 'sj_credits' order by seq",
        ada.id,
    )
    log = await rows(owner, "select action, actor from tallybook.audit_log order by id")
    reasons = await rows(owner, "select details ->> 'reason' from tallybook.audit_details order by audit_id")
    herself = f"student:{ada.id}"
    assert entries[1:] == [("grant", "cli:grace"), ("booking", herself), ("refund", "cli:hopper")]
    assert log == [
        ("credits.adjusted", "cli:grace"),
        ("booking.created", herself),
        ("booking.moved", herself),
        ("booking.cancelled", "cli:hopper"),
    ]
    assert reasons == [("a present",), ("ill",)]


async def test_a_shared_student_id_is_never_guessed(db):
    """A10: who is meant must be clear before a balance changes."""
    for _ in range(2):
        await make_contact(db, student_id="TWINS", credits={"sj_credits": 1})
    with pytest.raises(AmbiguousContact):
        await grant(db, "student:TWINS")


async def test_a_refund_and_its_cancellation_happen_together_or_not_at_all(db, owner, connect, database_uri):
    """A20: when the end of the transaction fails, neither the credit nor the seat has come back."""
    ada = await make_contact(db, credits={"sj_credits": 1})
    booking = await book(db, ada, await make_mock_exam(db))
    failing = await connect(database_uri)
    await failing.execute("begin")
    await failing.execute(
        "select tallybook.cancel_booking(null, null, null, null, %s, true, 'cli:test', null, null,"
        " null, null, null, null, false)",
        (booking["id"],),
    )
    await failing.close()

    ((status,),) = await rows(owner, "select status from tallybook.bookings where id = %s", booking["id"])
    assert (status, (await balances(db, ada))["sj_credits"]) == ("Active", 0)


async def test_a_session_with_bookings_cannot_be_removed(db, owner, superuser):
    """A28: no counter, stale or not, lets bookings or their session disappear."""
    ada = await make_contact(db, credits={"sj_credits": 1})
    exam = await make_mock_exam(db)
    booking = await book(db, ada, exam)

    for connection, statement, value in (
        (owner, "delete from tallybook.mock_exams where id = %s", exam.id),
        (superuser, "delete from tallybook.mock_exams where id = %s", exam.id),
        (superuser, "delete from tallybook.bookings where id = %s", booking["id"]),
    ):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            await connection.execute(statement, (value,))


async def test_a_booking_that_moves_takes_seat_date_and_time_with_it(db, owner):
    """A30, A38: nothing stays on the old day, ids are kept, and what the student chose is not overwritten."""
    ada = await make_contact(db, credits={"sj_credits": 1})
    here = await make_mock_exam(db)
    there = await make_mock_exam(db, days=8, start="13:00", end="15:00", location="Calgary")
    booking = await book(db, ada, here)
    await owner.execute("update tallybook.bookings set attending_location = 'Montreal'")

    moved = await move(db, ada, booking, there)

    ((on, starts_at, ends_at, location),) = await rows(
        owner, "select exam_on, starts_at, ends_at, attending_location from tallybook.bookings"
    )
    seats = dict(await rows(owner, "select id, total_bookings from tallybook.mock_exams"))
    assert (on, starts_at, ends_at, location) == (there.exam_on, there.starts_at, there.ends_at, "Montreal")
    assert (moved["id"], moved["booking_id"]) == (booking["id"], booking["booking_id"])
    assert seats == {here.id: 0, there.id: 1}


async def test_the_staffs_booking_has_its_seat_text_and_note_in_one_commit(db, owner):
    """A31: there is no booking the student cannot see, and its text is made by the server."""
    ada = await make_contact(db, credits={}, student_id="31337")
    exam = await make_mock_exam(db)

    answer = await book_with_override(
        db, contact_id=str(ada.id), mock_exam_id=str(exam.id), actor="cli:grace", reason="a favour"
    )

    data = json.loads(answer.data)
    one_commit = await rows(
        owner,
        "select b.booking_id, b.token_used, e.total_bookings, o.version from tallybook.bookings b"
        " join tallybook.mock_exams e on e.id = b.mock_exam_id and e.xmin = b.xmin"
        " join tallybook.outbox o on o.object_id = b.id and o.xmin = b.xmin",
    )
    assert one_commit == [(data["booking_id"], "Admin Override", 1, 1)]
    assert data["booking_id"].startswith("Situational Judgment-31337-")


async def test_two_hundred_requests_share_the_pools_connections(database_uri, owner):
    """A32: no request opens a connection of its own, whether it succeeds or is refused."""
    db = Database(database_uri, size=4)
    exam = await make_mock_exam(db, capacity=50)
    crowd = await make_contacts(db, 100, credits={"sj_credits": 1})
    most = 0

    async def watched(contact):
        nonlocal most
        with suppress(ExamFull):
            await book(db, contact, exam)
        most = max(most, db.use.open)

    await asyncio.gather(*(watched(each) for each in crowd * 2))
    ((connected,),) = await rows(
        owner,
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and application_name = 'tallybook' and state is not null",
    )
    await db.close()
    assert (most, connected) == (4, 4)


async def test_what_an_answer_did_not_contain_is_not_written(db, owner):
    """A33, A34: a property that was not asked for, or an answer without balances, empties nothing."""
    ada = await make_contact(db, credits={"sj_credits": 4})
    before = await rows(owner, "select email, student_id, firstname, lastname from tallybook.contacts")

    await absorb_contacts(
        db,
        [
            remote_contact(
                hubspot_id=ada.hubspot_id,
                student_id=None,
                email=None,
                firstname=None,
                lastname="Byron",
                present=frozenset({"lastname"}),
            )
        ],
        first_reason="import",
    )

    after = await rows(owner, "select email, student_id, firstname, lastname from tallybook.contacts")
    assert after == [(*before[0][:3], "Byron")]
    assert (await balances(db, ada))["sj_credits"] == 4


async def test_a_number_is_given_once_however_many_ask(db, owner):
    """A45: the ordinal of a booking neither repeats nor starts again, whatever was cancelled before."""
    ada = await make_contact(db, credits={"sj_credits": 1})
    exam = await make_mock_exam(db)
    for _ in range(4):
        await cancel(db, ada, await book(db, ada, exam))

    numbers = await rows(owner, "select ordinal from tallybook.bookings order by created_at")
    texts = await rows(owner, "select count(distinct booking_id) from tallybook.bookings")
    assert numbers == [(1,), (2,), (3,), (4,)]
    assert texts == [(4,)]


async def test_what_hubspot_must_hear_is_noted_with_the_change_itself(db, owner):
    """A46: booking, cancelling and granting leave their note in the same commit; a refusal leaves none."""
    ada, poor = await make_contact(db, credits={"sj_credits": 1}), await make_contact(db, credits={})
    exam = await make_mock_exam(db)
    noted = []

    async def note():
        found = await rows(
            owner, "select object_type, version from tallybook.outbox order by object_type, version"
        )
        noted.append(dict(found))

    booking = await book(db, ada, exam)
    await note()
    with pytest.raises(TallybookError):
        await book(db, poor, exam)
    await note()
    await cancel(db, ada, booking)
    await note()
    await grant(db, str(ada.id))
    await note()

    once, twice = (dict.fromkeys(("booking", "contact", "mock_exam"), n) for n in (1, 2))
    assert noted == [once, once, twice, twice | {"contact": 3}]


async def test_callers_at_once_never_act_as_each_other(db, database_uri):
    """B2: forty callers on four shared connections: each sees and spends what is theirs."""
    shared = Database(database_uri, size=4)
    exams = [await make_mock_exam(db, days=7 + n, capacity=100) for n in range(3)]
    crowd = await make_contacts(db, 40, credits={"sj_credits": 3})

    async def live(contact):
        caller = student(contact)
        seen = json.loads((await show_student(shared, NOBODY_IS_MISSING, caller=caller, pair=None)).data)
        assert (seen["id"], seen["email"]) == (str(contact.id), contact.email)
        for exam in exams:
            answer = await book_seat(
                shared, NOBODY_IS_MISSING, caller=caller, pair=None, mock_exam_id=str(exam.id)
            )
            assert f"-{contact.student_id}-" in json.loads(answer.data)["booking_id"]

    await asyncio.gather(*(live(each) for each in crowd))
    await shared.close()
    assert [(await balances(db, each))["sj_credits"] for each in crowd] == [0] * 40


async def test_another_process_sees_a_change_at_once(db, database_uri):
    """B9: no process keeps a balance of its own."""
    ada = await make_contact(db, credits={"sj_credits": 2})
    exam = await make_mock_exam(db)
    other = Database(database_uri, size=1)
    try:
        for expected in (1, 2):
            if expected == 1:
                booking = await book(db, ada, exam)
            else:
                await cancel(db, ada, booking)
            seen = await show_student(other, NOBODY_IS_MISSING, caller=student(ada), pair=None)
            assert json.loads(seen.data)["credits"]["sj_credits"] == expected
    finally:
        await other.close()
