"""The ledger is append-only, gapless, and the only way to a balance, whoever tries."""

import asyncio

import psycopg
import pytest
from psycopg import sql

from support.factories import balances, book, cancel, make_contact, make_mock_exam, seats_taken

REFUSED = psycopg.errors.RestrictViolation


@pytest.fixture
async def written(db):
    """A ledger and an audit log with rows in them."""
    contact = await make_contact(db, credits={"sj_credits": 3})
    await book(db, contact, await make_mock_exam(db))
    return contact


@pytest.mark.parametrize(
    "statement",
    [
        "update tallybook.credit_entries set delta = delta + 1",
        "update tallybook.credit_entries set actor = 'somebody else'",
        "delete from tallybook.credit_entries",
        "truncate tallybook.credit_entries cascade",
        "truncate tallybook.bookings cascade",
        "truncate tallybook.contacts cascade",
        "update tallybook.audit_log set actor = 'somebody else'",
        "delete from tallybook.audit_log",
        "truncate tallybook.audit_log cascade",
    ],
)
async def test_history_is_append_only_for_the_owner_too(owner, written, statement):
    """UPDATE, DELETE and TRUNCATE of entries and audit rows are refused, also by the way of another table."""
    with pytest.raises(REFUSED):
        await owner.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "update tallybook.credit_balances set balance = balance + 1",
        "update tallybook.credit_balances set version = version + 1",
        "update tallybook.mock_exams set total_bookings = total_bookings + 1",
        (
            "insert into tallybook.credit_balances (contact_id, credit_type, balance) select id, 'credits', 5"
            " from tallybook.contacts"
        ),
        (
            "insert into tallybook.credit_balances (contact_id, credit_type, held) select id, 'credits', 0"
            " from tallybook.contacts on conflict (contact_id, credit_type) do update set balance = 5"
        ),
    ],
)
async def test_a_number_changes_only_with_what_explains_it(db, owner, written, statement):
    """Even the owner cannot set a balance without an entry or a seat count without a booking."""
    before = await balances(db, written)
    if "do update" in statement:
        await owner.execute(statement)
    with pytest.raises((REFUSED, psycopg.errors.CheckViolation)):
        await owner.execute(statement)
    assert await balances(db, written) == before | ({"credits": 0} if "do update" in statement else {})


async def test_an_entry_cannot_be_left_out_after_it_changed_the_balance(owner, db, written):
    """ON CONFLICT DO NOTHING would keep the change and drop the entry, so the ledger takes none."""
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        await owner.execute(
            "insert into tallybook.credit_entries (contact_id, credit_type, delta, reason,"
            " actor, external_event)"
            " values (%s, 'sj_credits', 5, 'crm_edit', 'hubspot', 'e1') on conflict do nothing",
            (written.id,),
        )
    assert (await balances(db, written))["sj_credits"] == 2


async def test_fifty_writers_leave_no_gap(db, database_uri):
    """50 entries written at once over 50 connections are numbered 1 to 51 and add up."""
    contact = await make_contact(db, credits={"sj_credits": 1000})
    barrier = asyncio.Barrier(50)

    async def write(n):
        async with await psycopg.AsyncConnection.connect(database_uri, autocommit=True) as connection:
            await barrier.wait()
            await connection.execute(
                "insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor)"
                " values (%s, 'sj_credits', %s, 'correction', 'cli:test')",
                (contact.id, n if n % 2 else -n),
            )

    await asyncio.gather(*(write(n) for n in range(1, 51)))
    async with db.connection() as connection:
        rows = await (
            await connection.execute(
                "select seq, delta, balance_after from tallybook.credit_entries"
                " where credit_type = 'sj_credits' order by seq"
            )
        ).fetchall()
    assert [seq for seq, _, _ in rows] == list(range(1, 52))
    assert [after for _, _, after in rows] == [sum(d for _, d, _ in rows[: n + 1]) for n in range(51)]
    assert (await balances(db, contact))["sj_credits"] == 975


async def test_rolled_back_entries_leave_no_gap(db, owner):
    """A number is used only by a committed entry."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    insert = sql.SQL(
        "insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor)"
        " values (%s, 'sj_credits', 1, 'grant', 'cli:test') returning seq"
    )
    async with owner.transaction(force_rollback=True):
        assert await (await owner.execute(insert, (contact.id,))).fetchone() == (2,)
    assert await (await owner.execute(insert, (contact.id,))).fetchone() == (2,)


@pytest.mark.broken_on_purpose
async def test_seats_follow_bookings_however_they_change(db, owner):
    """A booking inserted, cancelled, revived, moved or deleted by hand takes and frees its seat."""
    contact = await make_contact(db, credits={})
    exam, other = await make_mock_exam(db), await make_mock_exam(db, days=8)
    booking = await book(db, contact, exam, override="by hand")
    steps = [
        (
            "update tallybook.bookings set status = 'Cancelled', cancelled_at = now(), refunded = false",
            (0, 0),
        ),
        ("update tallybook.bookings set status = 'Active', cancelled_at = null, refunded = null", (1, 0)),
        ("update tallybook.bookings set status = 'Completed'", (1, 0)),
        (
            (
                "update tallybook.bookings b set mock_exam_id = e.id, exam_on = e.exam_on,"
                " starts_at = e.starts_at,"
                f" ends_at = e.ends_at from tallybook.mock_exams e where e.id = '{other.id}'"
            ),
            (0, 1),
        ),
        ("delete from tallybook.bookings", (0, 0)),
    ]
    assert booking["token_used"] == "Admin Override"
    for statement, seats in steps:
        await owner.execute(statement)
        assert (await seats_taken(db, exam), await seats_taken(db, other)) == seats


@pytest.mark.parametrize(
    "change",
    [
        "id = gen_random_uuid()",
        "original_mock_exam_id = gen_random_uuid()",
        "ordinal = ordinal + 1",
        "idempotency_key = 'mine'",
        "booking_id = 'mine'",
    ],
)
async def test_what_identifies_a_booking_never_changes(db, owner, change):
    """Ids once given out resolve for ever."""
    await book(db, await make_contact(db, credits={"sj_credits": 1}), await make_mock_exam(db))
    with pytest.raises(REFUSED):
        await owner.execute(f"update tallybook.bookings set {change}")


@pytest.mark.broken_on_purpose
async def test_erasing_a_person_may_blank_the_text_of_a_booking(db, owner):
    """The student part of booking_id is personal data; everything else stays."""
    await book(db, await make_contact(db, credits={"sj_credits": 1}), await make_mock_exam(db))
    await owner.execute("update tallybook.contacts set erased_at = now()")
    await owner.execute("update tallybook.bookings set booking_id = 'Situational Judgment-x'")
    with pytest.raises(REFUSED):
        await owner.execute("update tallybook.bookings set ordinal = 9")


async def test_cancelling_by_hand_twice_gives_one_refund(db):
    """The second of two cancellations finds nothing left to give back."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    booking = await book(db, contact, await make_mock_exam(db))
    first, second = await cancel(db, contact, booking), await cancel(db, contact, booking)
    assert (first["_outcome"], second["_outcome"]) == ("ok", "already")
    assert (first["credits_restored"], second["credits_restored"]) == (1, 1)
    assert (await balances(db, contact))["sj_credits"] == 1
