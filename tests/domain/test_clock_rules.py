"""Local times: exactly one instant, or a refusal where daylight saving skips or doubles them."""

from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.domain.clock import (
    local_date,
    local_date_and_time,
    local_instant,
    parse_date,
    parse_time,
    zone_of,
)
from tallybook.domain.errors import ValidationError

FIRST, LAST = (datetime(year, 1, 1, tzinfo=UTC).replace(tzinfo=None) for year in (1950, 2099))
ZONES = ["America/Toronto", "America/Edmonton", "America/Vancouver", "Europe/Berlin", "Asia/Kolkata", "UTC"]


@pytest.mark.parametrize(
    ("zone", "at", "utc"),
    [
        ("America/Toronto", time(9), datetime(2026, 3, 8, 13, tzinfo=UTC)),
        ("America/Edmonton", time(9), datetime(2026, 3, 8, 15, tzinfo=UTC)),
        ("America/Toronto", time(1, 59), datetime(2026, 3, 8, 6, 59, tzinfo=UTC)),
        ("America/Toronto", time(3), datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ],
)
def test_a_local_time_on_the_day_of_the_change_is_one_instant(zone, at, utc):
    """Around the skipped hour everything else still works."""
    assert local_instant(date(2026, 3, 8), at, zone) == utc


@pytest.mark.parametrize("zone", ["America/Toronto", "America/Edmonton"])
@pytest.mark.parametrize(
    ("on", "at", "problem"),
    [
        (date(2026, 3, 8), time(2), "local time does not exist"),
        (date(2026, 3, 8), time(2, 59), "local time does not exist"),
        (date(2026, 11, 1), time(1), "local time happens twice"),
        (date(2026, 11, 1), time(1, 59, fold=1), "local time happens twice"),
    ],
)
def test_a_skipped_or_doubled_local_time_is_refused(zone, on, at, problem):
    """Nobody can know which instant was meant, so nobody guesses."""
    with pytest.raises(ValidationError) as caught:
        local_instant(on, at, zone, field="end_time")
    assert caught.value.details == {"field": "end_time", "problem": problem}
    assert zone in caught.value.message


@given(
    st.datetimes(FIRST, LAST).map(lambda moment: moment.replace(second=0, microsecond=0)),
    st.sampled_from(ZONES),
)
def test_a_local_time_is_refused_or_comes_back_unchanged(local, zone):
    """Local to instant to local is the identity, and no other instant shows the same clock."""
    try:
        instant = local_instant(local.date(), local.time(), zone)
    except ValidationError:
        readings = {local.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1)}
        assert len(readings) == 2
    else:
        assert instant.tzinfo is UTC
        assert local_date_and_time(instant, zone) == (local.date(), local.time())


def test_the_local_date_is_the_places_not_greenwichs():
    """23:30 in Vancouver is tomorrow in UTC and still today there."""
    assert local_date(datetime(2026, 1, 2, 7, 30, tzinfo=UTC), "America/Vancouver") == date(2026, 1, 1)


@pytest.mark.parametrize(
    "zone", ["", "America", "america/toronto2", "/etc/localtime", "../UTC", "localtime", "x" * 300, "\0"]
)
def test_text_that_is_no_zone_is_refused(zone):
    """Paths and folders are not zones."""
    with pytest.raises(ValidationError):
        zone_of(zone)


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29",
        "2026-13-01",
        "20260101",
        "2026-W01-1",
        " 2026-01-01",
        "\u0662\u0660\u0662\u0666-01-01",
        "0000-01-01",
        "9999-12-31",
    ],
)
def test_a_date_that_does_not_exist_is_refused(text):
    """Only YYYY-MM-DD, only real days, only years a session can have."""
    with pytest.raises(ValidationError) as caught:
        parse_date(text, field="exam_date")
    assert caught.value.details["field"] == "exam_date"


def test_years_without_an_instant_are_refused():
    """The last day of the calendar has no UTC instant in Toronto."""
    with pytest.raises(ValidationError):
        local_instant(date(9999, 12, 31), time(23), "America/Toronto")


@pytest.mark.parametrize("text", ["24:00", "9:00", "09:60", "0900", "09:00:30", ""])
def test_a_time_that_does_not_exist_is_refused(text):
    """Only HH:MM of one day."""
    with pytest.raises(ValidationError):
        parse_time(text, field="start_time")


def test_dates_and_times_are_read():
    """Seconds of zero are tolerated."""
    assert parse_date("2028-02-29", field="x") == date(2028, 2, 29)
    assert parse_time("09:30:00", field="x") == time(9, 30)
