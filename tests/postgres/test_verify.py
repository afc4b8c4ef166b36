"""verify finds what is broken by hand: each rule is broken once, and exactly that rule is reported."""

import asyncio

import pytest

from support.damage import DAMAGE, damage
from support.factories import (
    book,
    cancel,
    make_contact,
    make_contacts,
    make_local_contact,
    make_mock_exam,
    move,
)
from tallybook.usecases.verify import INVARIANTS, verify

BOTH = {"sj_credits": 3, "cs_credits": 3}


@pytest.fixture
async def books(db):
    """A contact with a live booking, a second live one of another type, a refunded one and an override."""
    contact = await make_contact(db, credits=BOTH)
    bystander = await make_local_contact(db)
    exam = await make_mock_exam(db, mock_type="Clinical Skills", days=3)
    other = await make_mock_exam(db, days=4)
    third = await make_mock_exam(db, days=5)
    cancelled = await book(db, contact, third)
    await cancel(db, contact, cancelled)
    return {
        "contact": contact.id,
        "bystander": bystander.id,
        "exam": exam.id,
        "other_exam": other.id,
        "booking": (await book(db, contact, exam, key="k1"))["id"],
        "other": (await book(db, contact, other))["id"],
        "cancelled": cancelled["id"],
        "override": (await book(db, contact, third, override="a fault of ours"))["id"],
    }


def test_every_rule_is_broken_by_a_test():
    """A rule of verify that nobody has seen failing proves nothing."""
    assert set(DAMAGE) == set(INVARIANTS)


@pytest.mark.broken_on_purpose
@pytest.mark.parametrize("invariant", INVARIANTS)
async def test_verify_reports_exactly_what_is_broken(db, superuser, books, invariant):
    """The rule that is broken by hand is reported with the row, and no other."""
    assert (await verify(db)).ok()
    await damage(superuser, DAMAGE[invariant], books)
    report = await verify(db)
    assert set(report.violation_counts) == {invariant}
    assert not report.ok()
    assert all(found.invariant == invariant and found.object and found.problem for found in report.violations)


@pytest.mark.broken_on_purpose
@pytest.mark.parametrize(
    ("statements", "words"),
    [
        ("update contacts set merged_into = null; update contacts set merged_into = id", "circle"),
        ("update contacts set merged_into = gen_random_uuid() where id = :bystander", "does not exist"),
        ("update contacts set merged_into = :bystander where id = :contact", "still has the live booking"),
    ],
)
async def test_a_broken_merge_is_named(db, superuser, books, statements, words):
    """A merge in a circle, into nobody, or with something left behind is told apart."""
    await superuser.execute(
        "alter table tallybook.contacts drop constraint contacts_is_not_merged_into_itself"
    )
    await damage(superuser, statements, books)
    report = await verify(db)
    assert set(report.violation_counts) == {"merges_are_followed"}
    assert any(words in found.problem for found in report.violations)


@pytest.mark.broken_on_purpose
@pytest.mark.parametrize(
    ("invariant", "statements"),
    [
        ("balances_are_explained", "delete from credit_balances where credit_type = 'credits'"),
        (
            "bookings_are_paid_once",
            "update credit_entries set booking_id = gen_random_uuid() where booking_id = :booking",
        ),
        ("held_is_open_holds", "delete from credit_balances where credit_type = 'sjmini_credits'"),
        ("seats_are_live_bookings", "delete from bookings where id = :other"),
        ("keys_keep_their_answer", "update idempotency_keys set contact_id = gen_random_uuid()"),
    ],
)
async def test_a_missing_row_is_reported(db, superuser, books, invariant, statements):
    """What points to a row that is gone is a violation, not a row left out by a join."""
    await superuser.execute("set search_path = tallybook")
    for credit_type in ("credits", "sjmini_credits"):
        await superuser.execute(
            "select adjust_credits(%s, %s, 5, 'for a test', 'cli:test', null, null, null, null, false)",
            (books["contact"], credit_type),
        )
    await superuser.execute(
        "insert into credit_holds (contact_id, credit_type, credits, actor, expires_at)"
        " values (%s, 'sjmini_credits', 2, 'key:x', now() + interval '1 hour')",
        (books["contact"],),
    )
    await superuser.execute(
        "update credit_balances set held = 2 where contact_id = %s and credit_type = 'sjmini_credits'",
        (books["contact"],),
    )
    assert (await verify(db)).ok()
    await damage(superuser, statements, books)
    assert invariant in (await verify(db)).violation_counts


async def test_a_database_with_bookings_of_every_state_is_clean(db):
    """Booked, moved, cancelled, booked again and overridden: every number adds up."""
    contact = await make_contact(db, credits={"sj_credits": 2, "shared_mock_credits": 1, "credits": 50})
    first, second = [await make_mock_exam(db, days=d) for d in (3, 4)]
    booking = await book(db, contact, first, key="k1")
    await move(db, contact, booking, second)
    await cancel(db, contact, booking)
    await book(db, contact, second)
    await book(db, contact, first, override="the room was double-booked")
    heard = []
    report = await verify(db, on_progress=heard.append)
    assert report.ok()
    assert heard == list(INVARIANTS)
    assert (report.counts["bookings"], report.counts["entries"]) == (3, 6)


async def test_only_strict_minds_what_waits_for_hubspot(db, superuser):
    """Lag, dead letters and open conflicts are told; they fail only a strict check."""
    await make_local_contact(db, credits={"sj_credits": 1})
    await superuser.execute(
        "insert into tallybook.sync_conflicts (object_type, object_id, field, kind)"
        " select 'contact', id, 'sj_credits', 'below_zero' from tallybook.contacts"
    )
    report = await verify(db)
    assert (report.lag.waiting, report.lag.dead_letters, report.lag.open_conflicts) == (1, 0, 1)
    assert report.ok()
    assert not report.ok(strict=True)


async def test_grandfathered_bookings_are_warnings(db, superuser):
    """Two imported bookings of a type on one day are listed, and are no violation."""
    contact = await make_contact(db, credits=BOTH)
    exam = await make_mock_exam(db)
    booking = await book(db, contact, exam)
    await superuser.execute("set search_path = tallybook")
    await superuser.execute("update bookings set grandfathered = true where id = %s", (booking["id"],))
    await book(db, contact, await make_mock_exam(db, days=9))
    report = await verify(db)
    assert report.ok()
    assert [found.object for found in report.warnings] == [f"booking {booking['id']}"]


async def test_verify_sees_one_moment_while_others_write(db):
    """Bookings and cancellations under way do not look like wrong numbers."""
    contacts = await make_contacts(db, 8, credits={"sj_credits": 3})
    exam = await make_mock_exam(db, capacity=8)
    done = asyncio.Event()

    async def churn(contact):
        while not done.is_set():
            await cancel(db, contact, await book(db, contact, exam))

    writers = [asyncio.create_task(churn(contact)) for contact in contacts]
    reports = [await verify(db) for _ in range(8)]
    done.set()
    await asyncio.gather(*writers)
    assert [report.violations for report in reports] == [()] * 8
    assert reports[-1].counts["bookings"] > reports[0].counts["bookings"]


@pytest.mark.broken_on_purpose
async def test_a_thoroughly_broken_database_does_not_fill_the_memory(db, superuser):
    """Of 5,000 wrong balances the first thousand are listed and all are counted."""
    await superuser.execute(
        "insert into tallybook.contacts (email)"
        " select 'many' || n || '@example.com' from generate_series(1, 5000) n"
    )
    await superuser.execute("set session_replication_role = replica")
    await superuser.execute(
        "insert into tallybook.credit_balances (contact_id, credit_type, balance)"
        " select id, 'credits', 1 from tallybook.contacts"
    )
    report = await verify(db)
    assert report.violation_counts == {"balances_are_explained": 5000}
    assert len(report.violations) == 1000
