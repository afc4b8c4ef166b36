"""A booking as an iCalendar file, for the calendar on the student's phone."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import msgspec
from icalendar import STATUS, Calendar, Event

_PRODUCT = "-//Tallybook//Bookings//EN"


class _Booking(msgspec.Struct):
    id: str
    booking_id: str
    mock_type: str
    starts_at: datetime
    ends_at: datetime
    time_zone: str
    status: str
    created_at: datetime
    location: str | None = None
    attending_location: str | None = None
    address: str | None = None


_decode = msgspec.json.Decoder(_Booking).decode


def calendar_file(data: bytes, *, now: datetime) -> bytes:
    """The file of one booking as `show_booking` gives it, made `now`.

    The UID is the booking's own, so that opening the file again after a move or a cancellation changes the
    entry instead of adding one.
    """
    booking = _decode(data)
    zone = ZoneInfo(booking.time_zone)
    cancelled = booking.status == "Cancelled"
    place = ", ".join(
        dict.fromkeys(filter(None, (booking.attending_location, booking.location, booking.address)))
    )
    event = Event.new(
        uid=f"{booking.id}@tallybook",
        summary=booking.mock_type,
        description=booking.booking_id,
        start=booking.starts_at.astimezone(zone),
        end=booking.ends_at.astimezone(zone),
        stamp=now,
        created=booking.created_at,
        location=place or None,
        status=STATUS.CANCELLED if cancelled else STATUS.CONFIRMED,
        sequence=1 if cancelled else 0,
    )
    calendar = Calendar.new(uid=event.uid, prodid=_PRODUCT, method="PUBLISH", subcomponents=[event])
    # Calendars without a zone database of their own read the rules of the zone from the file.
    year = booking.starts_at.year
    calendar.add_missing_timezones(first_date=date(year - 1, 1, 1), last_date=date(year + 1, 12, 31))
    return bytes(calendar.to_ical())
