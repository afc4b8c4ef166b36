"""A booking in the student's calendar."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from icalendar import Calendar

from tallybook.api.calendar_file import calendar_file

BOOKING = {
    "id": "8a0f1c52-0000-4000-8000-000000000001",
    "booking_id": "Clinical Skills-1599005-March 8, 2026",
    "hubspot_id": None,
    "mock_type": "Clinical Skills",
    "starts_at": "2026-03-08T14:00:00Z",
    "ends_at": "2026-03-08T16:30:00Z",
    "time_zone": "America/Toronto",
    "status": "Active",
    "location": "Mississauga; Room 2, B9",
    "attending_location": None,
    "address": None,
    "created_at": "2026-02-01T10:00:00Z",
    "cancelled_at": None,
}


def event_of(**changes):
    file = calendar_file(msgspec.json.encode(BOOKING | changes), now=datetime(2026, 2, 3, tzinfo=UTC))
    assert b"\r\n" in file
    calendar = Calendar.from_ical(file)
    (event,) = calendar.walk("VEVENT")
    return calendar, event


def test_the_hour_is_the_one_on_the_wall_and_the_instant_is_right():
    """10:00 in Toronto on the day summer time begins is 14:00 UTC, and the file explains the zone."""
    calendar, event = event_of()
    start = event["DTSTART"].dt
    assert (start.hour, start.astimezone(UTC)) == (10, datetime(2026, 3, 8, 14, tzinfo=UTC))
    assert event["DTSTART"].params["TZID"] == "America/Toronto"
    assert [str(zone["TZID"]) for zone in calendar.walk("VTIMEZONE")] == ["America/Toronto"]
    assert event["DTEND"].dt - start == timedelta(hours=2, minutes=30)


def test_the_entry_is_the_booking_itself():
    """The same UID each time, so a second file changes the entry."""
    _, event = event_of()
    assert str(event["UID"]) == f"{BOOKING['id']}@tallybook"
    assert str(event["LOCATION"]) == "Mississauga; Room 2, B9"
    assert str(event["STATUS"]) == "CONFIRMED"


def test_a_cancelled_booking_is_struck_out():
    """Status and a higher sequence, which calendars obey."""
    _, event = event_of(status="Cancelled", cancelled_at="2026-02-02T10:00:00Z")
    assert (str(event["STATUS"]), int(event["SEQUENCE"])) == ("CANCELLED", 1)


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "UTC", "America/Vancouver"])
def test_any_zone_gives_the_same_instant(zone):
    """The zone changes what stands on the wall only."""
    _, event = event_of(time_zone=zone)
    assert event["DTSTART"].dt.astimezone(UTC) == datetime(2026, 3, 8, 14, tzinfo=UTC)
