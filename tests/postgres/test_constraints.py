"""What the database refuses has a name; each name is met once."""

import psycopg
import pytest

from support.factories import book, cancel, make_contact, make_mock_exam
from support.violations import VIOLATIONS
from tallybook.domain.errors import BalanceTooLow, DuplicateBooking, ExamFull, TimeConflict
from tallybook.postgres.answers import domain_error


async def _all(connection, query, params=None):
    return await (await connection.execute(query, params)).fetchall()


@pytest.fixture
async def one_of_each(db, superuser):
    """A row in every table, so that every constraint has something to refuse."""
    contact = await make_contact(db, credits={"sj_credits": 3})
    first = await make_mock_exam(db, hubspot_id="901", days=2)
    exam = await make_mock_exam(db, days=3, prerequisites=())
    await cancel(db, contact, await book(db, contact, first))
    await superuser.execute("set search_path = tallybook")
    await superuser.execute("set session_replication_role = replica")
    for statement in (
        "delete from credit_entries where reverses_entry_id is null",
        "delete from bookings",
    ):
        await superuser.execute(statement)
    await superuser.execute("set session_replication_role = origin")
    booking = await book(db, contact, exam)
    for statement in (
        f"update bookings set hubspot_id = '77' where id = '{booking['id']}'",
        "insert into contact_aliases select 'hubspot_id', '5', id from contacts",
        (
            "insert into credit_holds (contact_id, credit_type, credits, actor, expires_at)"
            " select contact_id, credit_type, 1, 'key:x', now() from credit_balances"
        ),
        f"insert into mock_exam_prerequisites values ('{exam.id}', '{first.id}')",
        "insert into api_keys values ('k', 'n', '', '{credits}')",
        "insert into staff (email, role) values ('a@example.com', 'viewer')",
        "insert into audit_details select id, contact_id, '{}' from audit_log limit 1",
        (
            "insert into sync_conflicts (object_type, object_id, field, kind)"
            " select 'contact', id, 'sj_credits', 'gap' from contacts"
        ),
    ):
        await superuser.execute(statement)
    await superuser.execute("set session_replication_role = replica")
    await superuser.execute(
        "update credit_entries set external_event = 'e' where reverses_entry_id is not null"
    )
    return contact


@pytest.mark.broken_on_purpose
async def test_every_check_and_key_refuses_under_its_name(superuser, one_of_each, subtests):
    """A statement that breaks one rule is refused with the name of that rule."""
    named = {
        name
        for (name,) in await _all(
            superuser,
            "select conname from pg_constraint where connamespace ="
            " 'tallybook'::regnamespace and contype in ('c', 'u')"
            " union all select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid"
            " where c.relnamespace = 'tallybook'::regnamespace and i.indisunique and i.indpred is not null",
        )
    }
    assert named - set(VIOLATIONS) == set()
    for name, statement in VIOLATIONS.items():
        with subtests.test(name):
            with pytest.raises(psycopg.errors.IntegrityError) as refused:
                async with superuser.transaction(force_rollback=True):
                    await superuser.execute(statement)
            assert refused.value.diag.constraint_name == name


async def test_every_constraint_is_named_by_hand(owner):
    """No constraint has a name PostgreSQL made up, except of columns that must not be null."""
    rows = await _all(
        owner,
        "select conname, conrelid::regclass::text, contype::text from pg_constraint"
        " where connamespace = 'tallybook'::regnamespace and contype <> 'n'",
    )
    made_up = [
        name
        for name, table, kind in rows
        if not name.startswith(table.removeprefix("tallybook."))
        or (kind == "p" and not name.endswith("_pkey"))
        or (kind == "f" and not name.endswith("_fkey"))
        or name.endswith("_check")
    ]
    assert made_up == []


async def test_a_full_session_refuses_a_booking_that_skipped_the_rules(db, owner):
    """Whoever inserts a booking past the functions meets the constraint of the seats."""
    contact, exam = await make_contact(db, credits={}), await make_mock_exam(db, capacity=0 + 1)
    await book(db, contact, exam, override="the only seat")
    other = await make_contact(db, credits={})
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        await owner.execute(_insert_booking(other, exam))
    assert refused.value.diag.constraint_name == "mock_exams_seats_within_capacity"
    assert isinstance(domain_error(refused.value), ExamFull)


async def test_an_overlapping_booking_that_skipped_the_rules_is_refused(db, owner):
    """Overlap is no key, and yet has a name."""
    contact = await make_contact(db, credits={})
    await book(db, contact, await make_mock_exam(db), override="first")
    exam = await make_mock_exam(db, mock_type="Mini-mock", start="11:59", end="12:30")
    with pytest.raises(psycopg.errors.ExclusionViolation) as refused:
        await owner.execute(_insert_booking(contact, exam))
    assert refused.value.diag.constraint_name == "bookings_no_overlap"
    assert isinstance(domain_error(refused.value), TimeConflict)


async def test_a_second_booking_of_a_day_that_skipped_the_rules_is_refused(db, owner):
    """The keys of live bookings become DUPLICATE_BOOKING."""
    contact = await make_contact(db, credits={})
    await book(db, contact, await make_mock_exam(db), override="first")
    exam = await make_mock_exam(db, start="15:00", end="16:00")
    with pytest.raises(psycopg.errors.UniqueViolation) as refused:
        await owner.execute(_insert_booking(contact, exam))
    assert isinstance(domain_error(refused.value), DuplicateBooking)


async def test_spending_below_zero_is_refused_by_the_balance(db, owner):
    """An entry that skipped the rules cannot overdraw."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        await owner.execute(
            "insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor)"
            " values (%s, 'sj_credits', -2, 'correction', 'cli:test')",
            (contact.id,),
        )
    assert isinstance(domain_error(refused.value), BalanceTooLow)


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ("'cs_credits', 1", "credit_entries_reversal_fits"),
        ("'sj_credits', -1", "credit_entries_reversal_fits"),
        ("'sj_credits', 2", "credit_entries_reversal_fits"),
    ],
)
async def test_a_reversal_must_fit_what_it_reverses(db, owner, values, constraint):
    """Another type, the same sign, or more than was spent is refused."""
    contact = await make_contact(db, credits={"sj_credits": 2, "cs_credits": 2})
    await book(db, contact, await make_mock_exam(db))
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        await owner.execute(
            "insert into tallybook.credit_entries"
            " (contact_id, credit_type, delta, reason, actor, reverses_entry_id)"
            f" select contact_id, {values}, 'refund', 'cli:test', id"
            " from tallybook.credit_entries where reason = 'booking'"
        )
    assert refused.value.diag.constraint_name == constraint


async def test_an_entry_needs_a_balance(db, owner):
    """A balance that is not known is not started by an entry."""
    contact = await make_contact(db, credits=None)
    with pytest.raises(psycopg.errors.ForeignKeyViolation) as refused:
        await owner.execute(
            "insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor)"
            " values (%s, 'sj_credits', 1, 'grant', 'cli:test')",
            (contact.id,),
        )
    assert refused.value.diag.constraint_name == "credit_entries_balance_fkey"


def _insert_booking(contact, exam):
    return (
        "insert into tallybook.bookings (booking_id, contact_id, mock_exam_id,"
        " original_mock_exam_id, ordinal,"
        " mock_type, exam_on, starts_at, ends_at, token_used, idempotency_key, booked_by)"
        f" select 'by hand', '{contact.id}', id, id, 1, mock_type, exam_on, starts_at,"
        f" ends_at, 'Admin Override',"
        f" 'by hand', 'cli:test' from tallybook.mock_exams where id = '{exam.id}'"
    )
