"""Mock exams and bookings from HubSpot: local times of the place, and a reason for what cannot be used."""

from datetime import UTC, date, datetime, time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.domain.bookings import BookingStatus
from tallybook.domain.catalog import default_catalog
from tallybook.domain.mock_exams import Opening
from tallybook.hubspot.booking_fields import BOOKING_PROPERTIES, parse_booking
from tallybook.hubspot.records import AssociatedId, AssociatedIds, Record
from tallybook.hubspot.session_fields import MOCK_EXAM_PROPERTIES, parse_mock_exam

CATALOG = default_catalog()
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


def ms(*parts):
    return str(int(datetime(*parts, tzinfo=UTC).timestamp() * 1000))


GOOD = {
    "mock_type": "clinical skills",
    "mock_set": "b",
    "exam_date": "2026-12-01",
    "start_time": ms(2026, 12, 1, 16),
    "end_time": ms(2026, 12, 1, 19, 30),
    "location": "calgary",
    "capacity": "12.0",
    "total_bookings": "3",
    "is_active": "true",
    "scheduled_activation_datetime": None,
}


def exam(**properties):
    record = Record(id="701", updated_at=AT, properties={**GOOD, **properties})
    return parse_mock_exam(record, CATALOG, default_zone="America/Toronto")


def booking(associations=None, **properties):
    linked = {
        name: AssociatedIds(tuple(AssociatedId(item) for item in ids))
        for name, ids in (associations or {}).items()
    }
    return parse_booking(Record(id="801", updated_at=AT, properties=properties, associations=linked), CATALOG)


def test_milliseconds_become_the_clock_of_the_place():
    """16:00 UTC is nine in the morning in Calgary, whatever the portal's zone."""
    found = exam()
    assert (found.exam_on, found.start_time, found.end_time) == (date(2026, 12, 1), time(9), time(12, 30))
    assert found.starts_at == datetime(2026, 12, 1, 16, tzinfo=UTC)
    assert (found.mock_type, found.location, found.time_zone) == (
        "Clinical Skills",
        "Calgary",
        "America/Edmonton",
    )
    assert (found.mock_set, found.capacity, found.total_bookings) == ("B", 12, 3)
    assert (found.activation, found.problems, found.notes) == (Opening.ACTIVE, (), ())


def test_times_typed_as_text_are_read():
    """Staff type 9:00 where the old system wrote milliseconds."""
    found = exam(start_time="9:00", end_time="12:30")
    assert (found.start_time, found.starts_at) == (time(9), datetime(2026, 12, 1, 16, tzinfo=UTC))


def test_without_a_date_the_start_tells_it():
    """The local date is the start's: 03:00 UTC is still the evening before in Calgary."""
    found = exam(exam_date=None, start_time=ms(2026, 12, 2, 3), end_time=ms(2026, 12, 2, 5))
    assert (found.exam_on, found.start_time) == (date(2026, 12, 1), time(20))


def test_a_date_that_was_changed_alone_counts():
    """The time stays what the clock showed, also across the change of clocks."""
    found = exam(exam_date="2026-07-01")
    assert (found.exam_on, found.start_time) == (date(2026, 7, 1), time(9))
    assert found.starts_at == datetime(2026, 7, 1, 15, tzinfo=UTC)
    assert found.notes == ("start_time lies on 2026-12-01, exam_date on 2026-07-01: exam_date counts",)


def test_an_unknown_place_keeps_its_name_and_takes_the_default_zone():
    """A session is not lost because the catalog lags behind."""
    found = exam(location="Halifax")
    assert (found.location, found.time_zone, found.start_time) == ("Halifax", "America/Toronto", time(11))
    assert found.problems == ()


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ({"mock_type": "Maxi-mock"}, "mock_type 'Maxi-mock' is not in the catalog"),
        ({"mock_type": None}, "mock_type is missing"),
        ({"location": ""}, "location is missing"),
        ({"start_time": None}, "start_time is missing"),
        ({"end_time": "noonish"}, "end_time 'noonish' is no time"),
        ({"exam_date": "soon"}, "exam_date 'soon' is no date"),
        ({"end_time": GOOD["start_time"]}, "end_time is not after start_time"),
        ({"exam_date": "2026-03-08", "start_time": "02:30"}, "start_time: local time does not exist"),
        ({"capacity": None}, "capacity is missing"),
        ({"capacity": "-2"}, "capacity '-2' is no number of seats"),
    ],
)
def test_a_session_that_cannot_take_place_says_why(properties, problem):
    """It is neither applied nor dropped: a person sees the reason."""
    assert problem in exam(**properties).problems


@pytest.mark.parametrize(
    ("properties", "activation", "opens_at"),
    [
        (
            {"is_active": "scheduled", "scheduled_activation_datetime": "2026-11-25T17:00:00Z"},
            "scheduled",
            25,
        ),
        ({"is_active": "scheduled", "scheduled_activation_datetime": ms(2026, 11, 25, 17)}, "scheduled", 25),
        ({"is_active": "scheduled"}, "inactive", None),
        ({"is_active": "FALSE"}, "inactive", None),
        ({"is_active": None}, "inactive", None),
        ({"is_active": "perhaps"}, "inactive", None),
    ],
)
def test_what_is_not_clearly_open_is_closed(properties, activation, opens_at):
    """An exam that opens by mistake sells seats."""
    found = exam(**properties)
    assert found.activation.value == activation
    assert found.opens_at == (datetime(2026, 11, opens_at, 17, tzinfo=UTC) if opens_at else None)


@given(st.dictionaries(st.sampled_from(MOCK_EXAM_PROPERTIES), st.none() | st.text()))
def test_no_text_breaks_the_reading_of_a_mock_exam(properties):
    """Without problems everything a session needs is there."""
    found = exam(**properties)
    needed = (
        found.mock_type,
        found.exam_on,
        found.start_time,
        found.end_time,
        found.location,
        found.capacity,
    )
    assert found.problems or (None not in needed and found.starts_at < found.ends_at)


def test_a_full_booking_in_our_words():
    """Associations name the contact and the mock exam, whatever the portal calls its custom type."""
    found = booking(
        {"contacts": ["601", "601"], "p123_mock_exams": ["701"]},
        booking_id="Clinical Skills-1599000-December 1, 2026",
        is_active="Active",
        token_used="shared token",
        attendance="Yes",
        dominant_hand="Right",
        idempotency_key="idem_0",
        token_refunded="true",
        token_refunded_at=ms(2026, 11, 1),
    )
    assert (found.contact_hubspot_id, found.mock_exam_hubspot_id, found.problems) == ("601", "701", ())
    assert (found.status, found.attendance, found.dominant_hand) == (BookingStatus.ACTIVE, "Yes", True)
    assert (found.token_used, found.credit_type) == ("Shared Token", "shared_mock_credits")
    assert (found.token_refunded, found.token_refunded_at) == (True, datetime(2026, 11, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("properties", "status"),
    [
        ({"is_active": "cancelled"}, "Cancelled"),
        ({"is_active": "Canceled"}, "Cancelled"),
        ({"is_active": None, "status": "Completed"}, "Completed"),
        ({"is_active": "", "booking_status": "active"}, "Active"),
        ({}, "Active"),
    ],
)
def test_a_status_is_found_in_new_and_old_properties(properties, status):
    """Lower-case variants and the two older properties are read too."""
    assert booking(**properties).status.value == status


@pytest.mark.parametrize(
    ("token", "used", "credit_type", "notes"),
    [
        ("Admin Override", "Admin Override", None, 0),
        (None, "Admin Override", None, 0),
        ("Gold Token", "Gold Token", None, 1),
    ],
)
def test_a_booking_without_a_known_token_refunds_nothing(token, used, credit_type, notes):
    """Unknown text is kept and noted."""
    found = booking(token_used=token)
    assert (found.token_used, found.credit_type, len(found.notes)) == (used, credit_type, notes)


def test_old_text_properties_stand_in_for_missing_associations():
    """Bookings of the old system may name contact and mock exam in text only."""
    found = booking(associated_contact_id="601", associated_mock_exam="701")
    assert (found.contact_hubspot_id, found.mock_exam_hubspot_id) == ("601", "701")


def test_a_booking_of_two_contacts_belongs_to_the_one_it_names():
    """Without a name it belongs to nobody, and a person has to look."""
    assert booking({"contacts": ["1", "2"]}, associated_contact_id="2").contact_hubspot_id == "2"
    found = booking({"contacts": ["1", "2"]}, associated_contact_id="3", associated_mock_exam="x")
    assert found.problems == ("is associated with 2 contacts", "has no mock exam")


@given(st.dictionaries(st.sampled_from(BOOKING_PROPERTIES), st.none() | st.text()))
def test_no_text_breaks_the_reading_of_a_booking(properties):
    """Whatever stands in HubSpot, a booking has a status and a token."""
    found = booking(**properties)
    assert found.status in BookingStatus
    assert found.token_used
