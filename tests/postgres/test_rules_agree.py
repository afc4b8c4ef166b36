"""Rules that stand in SQL and in domain/ are the same rule: asked both, they answer alike."""

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.factories import CATALOG, book, cancel, make_contact, make_local_contact, make_mock_exam
from tallybook.domain.bookings import (
    booking_closes_at,
    booking_id_text,
    derived_label,
    free_booking_id,
    overlaps,
    prerequisites_met,
    refunds,
)
from tallybook.domain.catalog import PrerequisiteRule, RefundRule
from tallybook.domain.credits import breakdown, paying_credit
from tallybook.domain.mock_exams import Opening, opening_at, seat_status

asked_both = settings(
    max_examples=40,
    deadline=None,
    # The database is the test's own, and every example is rolled back.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MINUTES = st.integers(0, 3)
SHIFTS = st.integers(-4, 4)
TYPE = CATALOG.mock_type("Situational Judgment")


@asynccontextmanager
async def undone(connection):
    """Everything inside is undone, and no trigger or foreign key minds."""
    async with connection.transaction(force_rollback=True):
        await connection.execute("set local search_path = tallybook")
        await connection.execute("set local session_replication_role = replica")
        yield


async def _one(connection, query, params=None):
    return (await (await connection.execute(query, params)).fetchone())[0]


def _row(table, **values):
    """A row of a table with these columns, as a query's parameter."""
    text = json.dumps(values, default=str).replace("'", "''")
    return f"jsonb_populate_record(null::tallybook.{table}, '{text}'::jsonb)"


@asked_both
@given(
    mock_type=st.sampled_from([each.name for each in CATALOG.mock_types])
    | st.text("AZaz09 -", min_size=1, max_size=20),
    student_id=st.none() | st.text("ABZ019", min_size=1, max_size=12),
    on=st.dates(date(1900, 1, 1), date(2200, 12, 31)),
    contact_id=st.uuids(),
)
async def test_the_text_of_a_booking_is_the_same(superuser, *, mock_type, student_id, on, contact_id):
    """Type, student and date spelled out; eight hex digits stand in for a missing student ID."""
    async with undone(superuser):
        await superuser.execute(
            "insert into contacts (id, student_id) values (%s, %s)", (contact_id, student_id)
        )
        exam = _row("mock_exams", id=UUID(int=1), mock_type=mock_type, exam_on=on)
        text = await _one(superuser, f"select text_used from next_booking_names(%s, {exam})", (contact_id,))
    assert text == booking_id_text(mock_type, student_id=student_id, contact_id=contact_id, on=on)


@pytest.mark.parametrize("times", [5])
async def test_texts_are_numbered_alike(db, times):
    """Booked and cancelled again and again, each booking takes the next number."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    exam = await make_mock_exam(db)
    taken = []
    for _ in range(times):
        booking = await book(db, contact, exam)
        text = booking_id_text(
            exam.mock_type, student_id=contact.student_id, contact_id=contact.id, on=exam.exam_on
        )
        assert booking["booking_id"] == free_booking_id(text, taken=taken)
        taken.append(booking["booking_id"])
        await cancel(db, contact, booking)
    assert len(set(taken)) == times


@asked_both
@given(
    mock_type=st.sampled_from([each.name for each in CATALOG.mock_types]),
    contact_id=st.uuids(),
    exam_id=st.uuids(),
    ordinal=st.integers(1, 2**31 - 1),
)
async def test_the_derived_label_is_the_same(superuser, *, mock_type, contact_id, exam_id, ordinal):
    """The same SHA-256 over the same text."""
    label = await _one(
        superuser,
        "select tallybook.booking_label(%s, %s, %s, %s)",
        (contact_id, exam_id, ordinal, mock_type),
    )
    assert label == derived_label(mock_type, contact_id=contact_id, mock_exam_id=exam_id, ordinal=ordinal)


@pytest.fixture
async def paid(db):
    """A paid booking's row id."""
    contact = await make_contact(db, credits={"sj_credits": 1})
    return (await book(db, contact, await make_mock_exam(db)))["id"]


@asked_both
@given(rule=st.sampled_from(RefundRule), cutoff=MINUTES, shift=SHIFTS, spent=st.booleans())
async def test_the_refund_rule_is_the_same(superuser, paid, *, rule, cutoff, shift, spent):
    """Always, never, or up to and with the cut-off; and nothing where nothing was spent."""
    starts_at = NOW + timedelta(minutes=shift)
    cutoff = cutoff if rule is RefundRule.BEFORE_CUTOFF else 0
    kind = replace(TYPE, refund_rule=rule, refund_cutoff_min=cutoff)
    mock_type = _row("mock_types", name=kind.name, refund_rule=rule.value, refund_cutoff_min=cutoff)
    async with undone(superuser):
        if not spent:
            await superuser.execute("update credit_entries set booking_id = null")
        await superuser.execute("update bookings set starts_at = %s", (starts_at,))
        restored = await _one(
            superuser,
            f"select (refund_of(b, {mock_type}, %s, null) ->> 'credits_restored')::integer from bookings b",
            (NOW,),
        )
    assert (restored == 1) == refunds(kind, starts_at=starts_at, now=NOW, paid=spent)


@pytest.fixture
async def prerequisites(db):
    """A contact with bookings in three mock exams, and a discussion that may require them."""
    contact = await make_contact(db, credits={})
    exams = [await make_mock_exam(db, days=d) for d in (1, 2, 3)]
    for exam in exams:
        await book(db, contact, exam, override="for a test")
    return contact, exams, await make_mock_exam(db, mock_type="Mock Discussion", days=9)


HAVING = st.sampled_from(["none", "cancelled", "booked", "missed", "attended"])


@asked_both
@given(
    rule=st.sampled_from(PrerequisiteRule),
    required=st.lists(st.integers(0, 2), unique=True),
    having=st.tuples(HAVING, HAVING, HAVING),
)
async def test_the_prerequisite_rules_are_the_same(superuser, prerequisites, *, rule, required, having):
    """Any or all, booked or attended; nothing required is always met."""
    contact, exams, discussion = prerequisites
    async with undone(superuser):
        for n in required:
            await superuser.execute(
                "insert into mock_exam_prerequisites values (%s, %s)", (discussion.id, exams[n].id)
            )
        for exam, state in zip(exams, having, strict=True):
            await _have(superuser, exam, state)
        mock_type = _row("mock_types", name="Mock Discussion", prerequisite_rule=rule.value)
        refusal = await _one(
            superuser,
            f"select (contact_refusal(%s, e, {mock_type}, false, null)).refusal from"
            f" mock_exams e where e.id = %s",
            (contact.id, discussion.id),
        )
    met = prerequisites_met(
        rule,
        required=[exams[n].id for n in required],
        booked=[e.id for e, s in zip(exams, having, strict=True) if s in {"booked", "missed", "attended"}],
        attended=[e.id for e, s in zip(exams, having, strict=True) if s == "attended"],
    )
    assert refusal == (None if met else "PREREQUISITE_NOT_MET")


async def _have(superuser, exam, state):
    if state == "none":
        await superuser.execute("delete from bookings where mock_exam_id = %s", (exam.id,))
        return
    status = {"cancelled": "Cancelled", "booked": "Active"}.get(state, "Completed")
    attendance = {"missed": "No", "attended": "Yes"}.get(state)
    await superuser.execute(
        "update bookings set status = %s, attendance = %s, cancelled_at = %s where mock_exam_id = %s",
        (status, attendance, NOW if state == "cancelled" else None, exam.id),
    )


AMOUNT = st.none() | st.tuples(st.integers(0, 2), st.integers(0, 2)).map(lambda pair: (max(pair), min(pair)))


@pytest.fixture
async def local(db):
    """A contact HubSpot has not heard of."""
    return await make_local_contact(db)


@asked_both
@given(
    pays_with=st.permutations(["sj_credits", "shared_mock_credits", "credits"]),
    amounts=st.tuples(*[AMOUNT] * 3),
)
async def test_the_credit_that_pays_is_the_same(superuser, local, pays_with, amounts):
    """The first that has one not set aside; an unknown mirrored balance is a question, never 0."""
    known = {name: amount for name, amount in zip(pays_with, amounts, strict=True) if amount is not None}
    async with undone(superuser):
        for name, (balance, held) in known.items():
            await superuser.execute(
                "insert into credit_balances (contact_id, credit_type, balance, held)"
                " values (%s, %s, %s, %s)",
                (local.id, name, balance, held),
            )
        refusal, chosen = await (
            await superuser.execute(
                "select c.refusal, c.data ->> 'credit_type' from choose_credit(%s, %s) c",
                (local.id, pays_with),
            )
        ).fetchone()
    available = {"credits": 0} | {name: balance - held for name, (balance, held) in known.items()}
    try:
        expected = paying_credit(pays_with, available)
    except KeyError:
        assert refusal == "BALANCE_UNKNOWN"
    else:
        assert chosen == expected
        assert refusal == (None if expected else "INSUFFICIENT_CREDITS")


@asked_both
@given(specific=st.integers(0, 3), shared=st.integers(0, 3), held=st.integers(0, 3))
async def test_the_breakdown_of_credits_is_the_same(superuser, local, specific, shared, held):
    """The specific credits first, the others as shared, without what is set aside."""
    held = min(held, specific)
    async with undone(superuser):
        await superuser.execute(
            "insert into credit_balances (contact_id, credit_type, balance, held)"
            " values (%(id)s, 'sj_credits', %(n)s, %(held)s), (%(id)s, 'shared_mock_credits', %(m)s, 0)",
            {"id": local.id, "n": specific, "held": held, "m": shared},
        )
        data = await _one(
            superuser,
            "select (check_credits(%s, null, null, null, 'Situational Judgment', 'database')).data",
            (local.id,),
        )
    parts = breakdown(TYPE.pays_with, {"sj_credits": specific - held, "shared_mock_credits": shared})
    assert data["credit_breakdown"] == {
        "specific_credits": parts.specific_credits,
        "shared_credits": parts.shared_credits,
    }
    assert data["available_credits"] == parts.available_credits
    assert data["eligible"] == (parts.available_credits > 0)


@pytest.fixture
async def booked(db):
    """A contact with one live booking."""
    contact = await make_contact(db, credits={})
    await book(db, contact, await make_mock_exam(db), override="for a test")
    return contact


@asked_both
@given(first=st.tuples(SHIFTS, st.integers(1, 4)), second=st.tuples(SHIFTS, st.integers(1, 4)))
async def test_overlap_is_the_same(superuser, booked, first, second):
    """Half-open intervals: back to back is no conflict, neither for the function nor for the trigger."""
    (a, b), (c, d) = ((NOW + timedelta(hours=s), NOW + timedelta(hours=s + n)) for s, n in (first, second))
    async with undone(superuser):
        await superuser.execute("update bookings set starts_at = %s, ends_at = %s", (a, b))
        exam = _row(
            "mock_exams", id=UUID(int=1), mock_type="Mini-mock", exam_on="2026-11-21", starts_at=c, ends_at=d
        )
        refusal = await _one(
            superuser,
            f"select (contact_refusal(%s, {exam}, {_row('mock_types', name='Mini-mock')},"
            f" true, null)).refusal",
            (booked.id,),
        )
    overlap = overlaps(a, b, other_starts_at=c, other_ends_at=d)
    assert refusal == ("TIME_CONFLICT" if overlap else None)


@pytest.fixture
async def session(db):
    """A mock exam."""
    return await make_mock_exam(db)


@asked_both
@given(capacity=st.integers(1, 8), taken=st.integers(0, 8))
async def test_the_look_of_free_seats_is_the_same(superuser, session, capacity, taken):
    """Full, limited with at most three free, else available."""
    taken = min(taken, capacity)
    async with undone(superuser):
        await superuser.execute("update mock_exams set capacity = %s, total_bookings = %s", (capacity, taken))
        shown = await _one(superuser, "select (list_mock_exams('Situational Judgment', true)).data")
    assert shown[0]["status"] == seat_status(capacity=capacity, total_bookings=taken)


@asked_both
@given(
    stored=st.sampled_from(Opening),
    opens=st.none() | SHIFTS,
    starts=st.integers(1, 4),
    closes=MINUTES,
    override=st.booleans(),
)
async def test_what_is_open_is_the_same(superuser, *, stored, opens, starts, closes, override):
    """A scheduled exam opens with its minute; booking closes with its own; staff may book after that."""
    opens_at = None if opens is None else NOW + timedelta(minutes=opens)
    if stored is Opening.SCHEDULED and opens_at is None:
        opens_at = NOW
    starts_at = NOW + timedelta(minutes=starts)
    exam = _row("mock_exams", activation=stored.value, opens_at=opens_at, starts_at=starts_at)
    mock_type = _row("mock_types", name=TYPE.name, booking_closes_min=closes)
    refusal = await _one(
        superuser,
        f"select (tallybook.session_refusal({exam}, {mock_type}, %s, %s)).refusal",
        (NOW, override),
    )
    closed = booking_closes_at(replace(TYPE, booking_closes_min=closes), starts_at=starts_at) <= NOW
    if opening_at(stored, opens_at=opens_at, now=NOW) is not Opening.ACTIVE:
        assert refusal == "EXAM_NOT_ACTIVE"
    else:
        assert refusal == ("BOOKING_CLOSED" if closed and not override else None)
