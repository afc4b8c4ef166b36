"""Contacts from HubSpot: every text is a value or a note; nothing is guessed, nothing is lost."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.domain.catalog import default_catalog
from tallybook.hubspot.field_values import clean, day, instant, truth, whole_number
from tallybook.hubspot.fields import contact_properties, parse_contact
from tallybook.hubspot.records import Record

CATALOG = default_catalog()
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


def contact(**properties):
    return parse_contact(Record(id="601", updated_at=AT, properties=properties), CATALOG)


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), ("3.0", 3), ("3.", 3), (" 007 ", 7), ("0", 0), ("", 0), (None, 0), ("  ", 0), ("9999", 9999)],
)
def test_a_whole_number_is_read_and_nothing_is_zero(text, number):
    """HubSpot shows 3 as 3.0, and an empty balance at the first meeting is 0."""
    assert whole_number(text, most=9999) == number


@pytest.mark.parametrize(
    "text", ["-1", "12abc", "3.5", "1e3", "10000", str(2**40), "9" * 5000, "\u0663", "1,000", "0x1", "NaN"]
)
def test_an_odd_number_is_unreadable_and_never_zero(text):
    """A person has to look; the text typed is kept."""
    found = contact(sj_credits=text, cs_credits="2")
    assert found.balances == {"cs_credits": 2}
    assert found.unreadable == {"sj_credits": text[:200]}


def test_an_empty_balance_is_zero_and_known_to_be_empty():
    """So that emptying a balance later can be told from typing 0."""
    found = contact(sj_credits=None, cs_credits="", sjmini_credits="0")
    assert found.balances == {"sj_credits": 0, "cs_credits": 0, "sjmini_credits": 0}
    assert found.empty == {"sj_credits", "cs_credits"}


def test_what_an_answer_did_not_contain_stays_absent():
    """A field that was not asked for must never be written as empty."""
    found = contact(email="a@b.c", firstname=None)
    assert found.present == {"email", "firstname"}
    assert found.balances == {}
    told = found.to_absorb()
    assert told["texts"] == {"email": "a@b.c", "firstname": None}
    assert (told["balances"], told["unreadable"], told["unreadable_texts"]) == ({}, {}, {})
    assert "history" not in told


def test_a_full_contact_in_our_words():
    """Identity is normalised as it is at login, so that the pair is found again."""
    found = contact(
        email=" Jo@Example.COM",
        student_id="ab12 ",
        firstname="Jo\n",
        lastname="Doe\0",
        ndecc_exam_date="2027-03-01",
        sj_credits="4.0",
        tallybook_sync="7 sj_credits=4",
        tallybook_id="0e984725-c51c-4bf4-9960-e1c80e27aba0",
    )
    assert (found.email, found.student_id) == ("jo@example.com", "AB12")
    assert (found.firstname, found.lastname, found.ndecc_exam_on) == ("Jo", "Doe", date(2027, 3, 1))
    assert (found.stamp, found.balances, found.notes) == ("7 sj_credits=4", {"sj_credits": 4}, ())
    told = found.to_absorb()
    assert (told["texts"]["ndecc_exam_date"], told["write_no"]) == ("2027-03-01", 7)


def test_identity_that_breaks_the_rules_is_left_out_with_a_note():
    """Such a contact cannot sign in, and staff can see why."""
    found = contact(email="no-at", student_id="15-99", ndecc_exam_date="soon")
    assert (found.email, found.student_id, found.ndecc_exam_on) == (None, None, None)
    assert found.notes == (
        "email must have exactly one @",
        "student_id must be 1 to 32 letters or digits",
        "ndecc_exam_date is no date",
    )
    assert found.to_absorb()["texts"] == {}
    assert found.to_absorb()["unreadable_texts"] == {
        "email": "no-at",
        "student_id": "15-99",
        "ndecc_exam_date": "soon",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-03-01", date(2027, 3, 1)),
        ("1803859200000", date(2027, 3, 1)),
        ("2027-03-01T00:00:00Z", date(2027, 3, 1)),
        ("2027-02-30", None),
        ("99999999999999", None),
        ("", None),
        (None, None),
    ],
)
def test_a_date_is_iso_or_midnight_in_utc(text, expected):
    """Both of HubSpot's spellings of a date."""
    assert day(text) == expected


@given(st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_an_instant_survives_both_spellings(at):
    """ISO 8601 and milliseconds mean the same moment."""
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)
    assert instant(at.isoformat()) == at
    assert instant(str(round(at.timestamp() * 1000))) == at


@given(st.text())
def test_cleaned_text_can_be_stored(text):
    """No NUL, no lone surrogate, no line end, nothing around it."""
    found = clean(text)
    assert found is None or (found == found.strip() and "\0" not in found and "\n" not in found)
    if found is not None:
        found.encode()


@given(st.dictionaries(st.sampled_from(contact_properties(CATALOG)), st.none() | st.text()))
def test_no_text_breaks_the_reading_of_a_contact(properties):
    """Each balance asked for is a number or unreadable, never both and never neither."""
    found = contact(**properties)
    asked = {t.name for t in CATALOG.mirrored_credit_types} & set(properties)
    assert set(found.balances) | set(found.unreadable) == asked
    assert not set(found.balances) & set(found.unreadable)
    assert all(0 <= number <= 9999 for number in found.balances.values())


def test_all_balances_are_asked_for_together():
    """With the stamp that tells our own writes from those of people."""
    asked = contact_properties(CATALOG)
    assert {
        "sj_credits",
        "cs_credits",
        "sjmini_credits",
        "mock_discussion_token",
        "shared_mock_credits",
    } < set(asked)
    assert {"tallybook_sync", "student_id", "email", "ndecc_exam_date"} < set(asked)
    assert "credits" not in asked


@pytest.mark.parametrize(("text", "expected"), [("Yes", True), ("false", False), ("", None), ("maybe", None)])
def test_yes_and_no_in_hubspots_words(text, expected):
    """Anything else is neither."""
    assert truth(text) is expected
