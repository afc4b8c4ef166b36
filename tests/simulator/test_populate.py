"""What a portal is filled with: bookings that keep the rules of seats and days, the same each time."""

from collections import Counter

import pytest

BOOKINGS = "/crm/v3/objects/bookings"
NAMES = "booking_id,is_active,token_used,token_refunded,student_id,email,exam_date,mock_type"


def _bookings(portal):
    rows, after = [], 0
    while True:
        query = {"limit": 100, "after": after, "properties": NAMES, "associations": "contacts,mock_exams"}
        page = portal.http.get(BOOKINGS, params=query).json()
        rows += page["results"]
        if "paging" not in page:
            return rows
        after = page["paging"]["next"]["after"]


def _linked(row, kind):
    [found] = [value for name, value in row["associations"].items() if name.endswith(kind)]
    [only] = found["results"]
    return only["id"]


@pytest.fixture(scope="module")
def filled(full_portal):
    return full_portal, _bookings(full_portal)


def test_bookings_join_a_contact_and_a_session(filled):
    """Each has one of both, carries the contact's names, and shows the session's date."""
    portal, rows = filled
    assert len(rows) == 200
    assert len({row["properties"]["booking_id"] for row in rows}) == 200
    for row in rows[:20]:
        contact = portal.door("GET", f"records/contacts/{_linked(row, 'contacts')}").json()["properties"]
        exam = portal.door("GET", f"records/mock_exams/{_linked(row, 'mock_exams')}").json()["properties"]
        assert row["properties"]["email"] == contact["email"]
        assert row["properties"]["student_id"] == contact["student_id"]
        assert row["properties"]["exam_date"] == exam["exam_date"]


def test_nobody_is_booked_twice_a_day_and_no_seat_sold_twice(filled):
    """Live bookings fit each session's capacity and are what `total_bookings` says."""
    portal, rows = filled
    days = Counter((_linked(row, "contacts"), row["properties"]["exam_date"]) for row in rows)
    assert max(days.values()) == 1
    live = Counter(_linked(row, "mock_exams") for row in rows if row["properties"]["is_active"] == "Active")
    for one in portal.ids("mock_exams", limit=20):
        exam = portal.door("GET", f"records/mock_exams/{one}").json()["properties"]
        assert live[one] == int(exam["total_bookings"]) <= int(exam["capacity"])


def test_tokens_fit_the_type_and_cancelled_bookings_gave_theirs_back(filled):
    """Shared tokens pay for the two types they may; both statuses and Admin Override occur."""
    rows = [row["properties"] for row in filled[1]]
    assert {row["is_active"] for row in rows} == {"Active", "Cancelled"}
    assert "Admin Override" in {row["token_used"] for row in rows}
    for row in rows:
        shared = row["token_used"] == "Shared Token"
        assert not shared or row["mock_type"] in {"Situational Judgment", "Clinical Skills"}
        if row["token_used"] not in {"Shared Token", "Admin Override"}:
            assert row["token_used"] == f"{row['mock_type']} Token"
        back = row["is_active"] == "Cancelled" and row["token_used"] != "Admin Override"
        assert (row["token_refunded"] == "true") is back


def test_the_seed_decides(filled, serve):
    """The same seed makes the same bookings under the same ids, another one others."""

    def shown(rows):
        return [(row["id"], row["properties"]["booking_id"], _linked(row, "contacts")) for row in rows]

    same, other = (_bookings(serve(contacts=300, mock_exams=20, bookings=200, seed=seed)) for seed in (1, 2))
    assert shown(same) == shown(filled[1])
    assert shown(other) != shown(same)


def test_more_bookings_than_seats_are_refused(portal):
    """The sentence says how many fit; and twice is refused as for the others."""
    refused = portal.post("/_simulator/populate", {"bookings": 100_000})
    assert refused.status_code == 400
    portal.door("POST", "reset")
    assert portal.post("/_simulator/populate", {"bookings": 1}).status_code == 400, "nobody and nothing there"
    done = portal.post("/_simulator/populate", {"contacts": 20, "mock_exams": 4, "bookings": 10})
    assert done.json() == {"contacts": 20, "mock_exams": 4, "bookings": 10}
    assert portal.post("/_simulator/populate", {"bookings": 1}).status_code == 409
