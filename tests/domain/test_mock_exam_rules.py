"""A mock exam: open at its minute, full without a seat, and only sessions that can take place."""

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.domain.catalog import default_catalog
from tallybook.domain.errors import InvalidMockType, ValidationError
from tallybook.domain.mock_exams import Opening, SeatStatus, opening_at, parse_session, seat_status

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
GOOD = {
    "mock_type": "Clinical Skills",
    "exam_on": "2026-12-01",
    "start_time": "09:00",
    "end_time": "12:30",
    "location": "Calgary",
    "capacity": 12,
}


def test_a_scheduled_exam_opens_with_its_minute_without_any_job():
    """The minute itself is open; a moment before is not."""
    assert opening_at(Opening.SCHEDULED, opens_at=NOW, now=NOW) is Opening.ACTIVE
    assert opening_at(Opening.SCHEDULED, opens_at=NOW + timedelta(seconds=1), now=NOW) is Opening.SCHEDULED
    assert opening_at(Opening.SCHEDULED, opens_at=None, now=NOW) is Opening.SCHEDULED


@pytest.mark.parametrize("stored", [Opening.ACTIVE, Opening.INACTIVE])
def test_time_changes_nothing_for_an_exam_that_is_not_scheduled(stored):
    """An inactive exam stays closed, whatever its old opening time."""
    assert opening_at(stored, opens_at=NOW - timedelta(days=1), now=NOW) is stored


@given(st.sampled_from(Opening))
def test_the_opening_survives_the_words_of_hubspot(opening):
    """true, false and scheduled there."""
    assert Opening.from_crm_text(f" {opening.crm_text.upper()} ") is opening
    assert Opening.from_crm_text("perhaps") is None


@given(st.integers(1, 50), st.integers(0, 60))
def test_seats_look_full_limited_or_available(capacity, taken):
    """At most three free seats are `limited`."""
    free = capacity - taken
    expected = SeatStatus.FULL if free <= 0 else SeatStatus.LIMITED if free <= 3 else SeatStatus.AVAILABLE
    assert seat_status(capacity=capacity, total_bookings=taken) is expected


def test_a_session_takes_its_zone_from_its_place():
    """Nine o'clock in Calgary is sixteen o'clock in UTC in winter."""
    session = parse_session(default_catalog(), **GOOD, mock_set=" b ", address=" 1  Main St ")
    assert session.starts_at == datetime(2026, 12, 1, 16, tzinfo=UTC)
    assert (session.start_time, session.time_zone) == (time(9), "America/Edmonton")
    assert (session.mock_set, session.address) == ("B", "1 Main St")


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("exam_on", "2026-02-30", "exam_date"),
        ("start_time", "25:00", "start_time"),
        ("end_time", "09:00", "end_time"),
        ("end_time", "08:00", "end_time"),
        ("location", "Atlantis", "location"),
        ("capacity", 0, "capacity"),
        ("capacity", 1001, "capacity"),
        ("capacity", True, "capacity"),
        ("mock_set", "Z", "mock_set"),
        ("address", "x" * 501, "address"),
        ("address", "a\0b", "address"),
    ],
)
def test_a_session_that_cannot_take_place_is_refused(field, value, named):
    """The field that is wrong is named."""
    with pytest.raises(ValidationError) as caught:
        parse_session(default_catalog(), **{**GOOD, field: value})
    assert caught.value.details["field"] == named


def test_a_session_in_the_skipped_hour_is_refused():
    """On 8 March 2026 there is no 02:30 in Calgary."""
    with pytest.raises(ValidationError, match="does not exist"):
        parse_session(default_catalog(), **{**GOOD, "exam_on": "2026-03-08", "start_time": "02:30"})


def test_an_unknown_type_has_its_own_code():
    """INVALID_MOCK_TYPE tells old clients what is wrong."""
    with pytest.raises(InvalidMockType):
        parse_session(default_catalog(), **{**GOOD, "mock_type": "Maxi-mock"})
