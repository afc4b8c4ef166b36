"""The names the old front end reads."""

import msgspec
import pytest

from tallybook.api import old_names
from tallybook.api import requests as asks
from tallybook.api.reading import ShapeReader


def test_a_check_gains_the_field_that_was_always_null():
    """Everything else stays as it is."""
    assert msgspec.json.decode(old_names.of_a_check(b'{"eligible": true}')) == {
        "enrollment_id": None,
        "eligible": True,
    }


def test_a_discussion_check_counts_its_tokens_by_the_old_name():
    """Beside the new name, not instead of it."""
    data = b'{"credit_breakdown": {"specific_credits": 2, "shared_credits": 0}}'
    assert msgspec.json.decode(old_names.of_a_discussion_check(data)) == {
        "credit_breakdown": {"specific_credits": 2, "shared_credits": 0, "discussion_tokens": 2},
        "enrollment_id": None,
    }


def test_a_seat_carries_old_and_new_names():
    """The old confirmation page finds what it looks for."""
    seat = {
        "mock_type": "Mini-mock",
        "exam_date": "2026-12-01",
        "start_time": "09:00",
        "end_time": "10:00",
        "token_used": "Mini-mock Token",
        "credits_after": {"sjmini_credits": 1},
    }
    old = msgspec.json.decode(old_names.of_a_seat(msgspec.json.encode(seat)))
    assert old == seat | {
        "examType": "Mini-mock",
        "examDate": "2026-12-01",
        "startTime": "09:00",
        "endTime": "10:00",
        "tokenUsed": "Mini-mock Token",
        "creditsAfterDeduction": {"sjmini_credits": 1},
    }


@pytest.mark.parametrize(
    ("shape", "sent", "read"),
    [
        (
            asks.CreateBookingBody,
            {
                "studentId": "1599005",
                "email": "a@b.c",
                "mockExamId": "77",
                "attendingLocation": "Calgary",
                "dominantHand": True,
                "contactId": "1",
                "examDate": "2026-12-01",
            },
            {
                "student_id": "1599005",
                "email": "a@b.c",
                "mock_exam_id": "77",
                "attending_location": "Calgary",
                "dominant_hand": True,
                "dry_run": False,
            },
        ),
        (
            asks.CreateDiscussionBody,
            {
                "mock_exam_id": "77",
                "contact_id": "1",
                "student_id": "1599005",
                "name": "Ada",
                "email": "a@b.c",
                "exam_date": "2026-12-01",
                "discussion_format": "Virtual",
                "topic_preference": "x",
            },
            {"student_id": "1599005", "email": "a@b.c", "mock_exam_id": "77", "dry_run": False},
        ),
        (
            asks.ValidateCreditsBody,
            {"studentId": "1599005", "email": "a@b.c", "mockType": "Mini-mock"},
            {"student_id": "1599005", "email": "a@b.c", "mock_type": "Mini-mock"},
        ),
    ],
)
def test_bodies_of_the_old_front_end_are_read(shape, sent, read):
    """camelCase and the fields it sends without need."""
    body = ShapeReader(shape).from_json(msgspec.json.encode(sent))
    assert msgspec.to_builtins(body) == read


def test_cache_busters_of_the_old_pages_are_ignored():
    """They asked for fresh figures; there is no cache to pass by."""
    query = ShapeReader(asks.ListBookingsQuery).from_query(b"_t=1763&force=true&filter=past")
    assert (query.filter, query.page, query.limit) == ("past", 1, 20)
