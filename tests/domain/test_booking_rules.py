"""Rules of a booking, each as a reference the database functions are compared with."""

import hashlib
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.domain.bookings import (
    BookingStatus,
    FormAnswers,
    booking_closes_at,
    booking_id_text,
    cancellation_preview,
    derived_label,
    free_booking_id,
    overlaps,
    parse_form_answers,
    prerequisites_met,
    refunds,
)
from tallybook.domain.catalog import MockType, PrerequisiteRule, RefundRule, default_catalog
from tallybook.domain.errors import ValidationError

CONTACT = UUID("0e984725-c51c-4bf4-9960-e1c80e27aba0")
EXAM = UUID("d0e8c3c4-52f2-4c4f-8a71-7a1b5c1a0f10")
START = datetime(2026, 12, 1, 14, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CATALOG = default_catalog()

instants = st.integers(-500, 500).map(lambda minutes: START + minutes * MINUTE)


def mock_type(rule=RefundRule.ALWAYS, *, cutoff=0, closes=0, cancel=0):
    return MockType("T", ("t",), (), PrerequisiteRule.ALL_BOOKED, closes, cancel, rule, cutoff)


def test_the_booking_id_is_type_student_and_long_date():
    """The text people read, as the old system wrote it."""
    text = booking_id_text("Clinical Skills", student_id="1599999", contact_id=CONTACT, on=date(2026, 3, 1))
    assert text == "Clinical Skills-1599999-March 1, 2026"


def test_without_a_student_id_eight_hex_of_the_contact_stand_in():
    """A contact that is no student yet still gets a readable id."""
    text = booking_id_text("Mini-mock", student_id=None, contact_id=CONTACT, on=date(2026, 12, 31))
    assert text == "Mini-mock-0e984725-December 31, 2026"


@given(st.sets(st.integers(1, 12)))
def test_a_taken_booking_id_gets_the_first_free_number(numbers):
    """(2), (3), ... and never a text that another booking has."""
    taken = {"x" if number == 1 else f"x ({number})" for number in numbers}
    free = free_booking_id("x", taken=taken)
    assert free not in taken
    assert free == "x" or int(free.removeprefix("x (").removesuffix(")")) <= len(taken) + 1


def test_the_derived_label_is_a_hash_of_contact_exam_and_ordinal():
    """Retries of old clients find the same label."""
    digest = hashlib.sha256(
        b"0e984725-c51c-4bf4-9960-e1c80e27aba0:d0e8c3c4-52f2-4c4f-8a71-7a1b5c1a0f10:2"
    ).hexdigest()
    ids = {"contact_id": CONTACT, "mock_exam_id": EXAM}
    assert derived_label("Mini-mock", **ids, ordinal=2) == f"idem_{digest[:32]}"
    assert derived_label("Mock Discussion", **ids, ordinal=2) == f"idem_disc_{digest[:32]}"
    assert derived_label("Mini-mock", **ids, ordinal=3) != derived_label("Mini-mock", **ids, ordinal=2)


def test_back_to_back_does_not_overlap():
    """Intervals are half-open."""
    hour = timedelta(hours=1)
    assert not overlaps(START, START + hour, other_starts_at=START + hour, other_ends_at=START + 2 * hour)
    assert not overlaps(START + hour, START + 2 * hour, other_starts_at=START, other_ends_at=START + hour)
    assert overlaps(
        START, START + hour + MINUTE, other_starts_at=START + hour, other_ends_at=START + 2 * hour
    )


@given(instants, st.integers(1, 90), instants, st.integers(1, 90))
def test_two_sessions_overlap_when_they_share_a_minute(start, minutes, other, other_minutes):
    """The rule equals counting the minutes of both, whichever is named first."""
    first = {start + n * MINUTE for n in range(minutes)}
    second = {other + n * MINUTE for n in range(other_minutes)}
    ends, other_ends = start + minutes * MINUTE, other + other_minutes * MINUTE
    assert overlaps(start, ends, other_starts_at=other, other_ends_at=other_ends) == bool(first & second)
    assert overlaps(other, other_ends, other_starts_at=start, other_ends_at=ends) == bool(first & second)


@given(instants, st.booleans(), st.sampled_from(RefundRule), st.integers(0, 300))
def test_an_unpaid_booking_and_the_rule_never_refund_nothing(now, paid, rule, cutoff):
    """A refund needs a spend, a rule that allows it, and, with a cut-off, the time."""
    got = refunds(mock_type(rule, cutoff=cutoff), starts_at=START, now=now, paid=paid)
    in_time = rule is not RefundRule.BEFORE_CUTOFF or now + cutoff * MINUTE <= START
    assert got == (paid and rule is not RefundRule.NEVER and in_time)


def test_exactly_at_the_cutoff_the_credit_still_comes_back():
    """`24 hours before` includes the very minute."""
    rule = mock_type(RefundRule.BEFORE_CUTOFF, cutoff=24 * 60)
    assert refunds(rule, starts_at=START, now=START - timedelta(days=1), paid=True)
    assert not refunds(rule, starts_at=START, now=START - timedelta(days=1) + MINUTE, paid=True)


@given(instants, st.sampled_from(BookingStatus), st.integers(0, 300))
def test_a_preview_never_promises_what_a_closed_door_refuses(now, status, cancel):
    """Only an active booking, only before cancellation closes; a refund only then."""
    preview = cancellation_preview(
        mock_type(cancel=cancel), status=status, starts_at=START, now=now, paid=True
    )
    allowed = status is BookingStatus.ACTIVE and now < START - cancel * MINUTE
    assert preview.can_cancel == preview.refunds_credit == allowed


def test_booking_closes_minutes_before_the_start():
    """Zero minutes is the start itself."""
    assert booking_closes_at(mock_type(), starts_at=START) == START
    assert booking_closes_at(mock_type(closes=90), starts_at=START) == START - timedelta(minutes=90)


ids = st.sets(st.sampled_from([UUID(int=n) for n in range(4)]))


@given(st.sampled_from(PrerequisiteRule), ids, ids, ids)
def test_prerequisites_follow_the_rule_of_the_type(rule, required, booked, attended):
    """any or all, booked or attended; without prerequisites everybody may book."""
    have = attended if rule.value.endswith("attended") else booked
    hits = [exam in have for exam in required]
    expected = not required or (all(hits) if rule.value.startswith("all") else any(hits))
    assert prerequisites_met(rule, required=required, booked=booked, attended=attended) == expected


@pytest.mark.parametrize(
    ("value", "hand"), [("right", True), (" LEFT", False), (True, True), ("false", False)]
)
def test_the_dominant_hand_is_right_or_left(value, hand):
    """Old clients send true for right."""
    skills = CATALOG.mock_type("Clinical Skills")
    answers = parse_form_answers(skills, dominant_hand=value, attending_location="?", places=CATALOG.places)
    assert answers == FormAnswers(dominant_hand=hand)


@pytest.mark.parametrize("value", [None, "", "both", 1, ["right"]])
def test_an_asked_hand_that_is_missing_or_odd_is_refused(value):
    """Clinical Skills needs the hand for its station."""
    with pytest.raises(ValidationError) as caught:
        parse_form_answers(
            CATALOG.mock_type("Clinical Skills"),
            dominant_hand=value,
            attending_location=None,
            places=CATALOG.places,
        )
    assert caught.value.details["field"] == "dominant_hand"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("mississauga", "Mississauga"),
        ("mississauga_b9", "Mississauga - B9"),
        ("RICHMOND-HILL", "Richmond Hill"),
    ],
)
def test_a_location_is_known_by_its_letters(value, name):
    """Old spellings lead to the place's own name."""
    mini = CATALOG.mock_type("Mini-mock")
    answers = parse_form_answers(mini, dominant_hand=None, attending_location=value, places=CATALOG.places)
    assert answers == FormAnswers(attending_location=name)


@pytest.mark.parametrize("value", [None, "", "Atlantis", 7])
def test_an_asked_location_that_is_missing_or_unknown_is_refused(value):
    """The message lists the places."""
    mini = CATALOG.mock_type("Mini-mock")
    with pytest.raises(ValidationError, match="Vancouver") as caught:
        parse_form_answers(mini, dominant_hand=None, attending_location=value, places=CATALOG.places)
    assert caught.value.details["field"] == "attending_location"
