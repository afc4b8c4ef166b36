"""Who a contact is: one spelling for each e-mail and student id, four ways to name one."""

import string
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.domain.contacts import (
    ContactRef,
    ContactRefKind,
    Pair,
    normalise_email,
    normalise_student_id,
    parse_contact_ref,
)
from tallybook.domain.errors import ValidationError


def test_an_email_is_trimmed_and_lower_cased():
    """Odd case and spaces around it are no other person."""
    assert normalise_email("  Jo.Doe@Example.COM\n") == "jo.doe@example.com"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a@",
        "@b",
        "ab",
        "a@b@c",
        "a b@c",
        "a\t@b",
        "a\0@b",
        "a@b\u200b",
        "a\u00a0b@c",
        "\ud800@b",
        "x" * 253 + "@b",
    ],
)
def test_text_that_cannot_be_an_email_is_refused(text):
    """Exactly one @, something on both sides, nothing invisible, at most 254 characters."""
    with pytest.raises(ValidationError) as caught:
        normalise_email(text)
    assert caught.value.details["field"] == "email"
    assert caught.value.details["problem"]


@given(st.text(max_size=300) | st.emails())
def test_a_normal_email_stays_as_it_is(text):
    """Normalising twice changes nothing, and what passes keeps the promise."""
    try:
        email = normalise_email(text)
    except ValidationError:
        return
    assert normalise_email(email) == email
    assert 3 <= len(email) <= 254
    assert email.count("@") == 1


@given(st.emails())
def test_every_ordinary_email_is_accepted(text):
    """The rule refuses nothing a mail server would take."""
    assert normalise_email(text) == text.strip().lower()


@given(st.text(string.ascii_letters + string.digits, min_size=1, max_size=32))
def test_a_student_id_is_upper_cased(text):
    """Letters and digits, 1 to 32 of them."""
    assert normalise_student_id(f" {text} ") == text.upper()


@pytest.mark.parametrize(
    "text", ["", " ", "15-99", "ß", "\u017f", "\u0131", "\uff11\uff15", "A" * 33, "a b", "x\0", "1599'--"]
)
def test_text_that_is_no_student_id_is_refused(text):
    """Also letters that would only become A-Z when upper-cased: they are another id."""
    with pytest.raises(ValidationError) as caught:
        normalise_student_id(text)
    assert caught.value.details["field"] == "student_id"


def test_a_pair_is_normalised():
    """Two spellings of one student are equal."""
    assert Pair.parse(" ab1 ", "A@B.c") == Pair("AB1", "a@b.c")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("0E984725-C51C-4BF4-9960-E1C80E27ABA0", ContactRefKind.ID, "0e984725-c51c-4bf4-9960-e1c80e27aba0"),
        (" 601 ", ContactRefKind.HUBSPOT_ID, "601"),
        ("student: ab1", ContactRefKind.STUDENT_ID, "AB1"),
        ("Email:A@b.c", ContactRefKind.EMAIL, "a@b.c"),
    ],
)
def test_a_contact_is_named_in_four_ways(text, kind, value):
    """UUID, HubSpot id, student id or e-mail."""
    assert parse_contact_ref(text) == ContactRef(kind, value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "x",
        "student:",
        "email:x",
        "1" * 21,
        "{0e984725-c51c-4bf4-9960-e1c80e27aba0}",
        "'; --",
        "9" * 10_000,
    ],
)
def test_anything_else_names_nobody(text):
    """The error names the field."""
    with pytest.raises(ValidationError) as caught:
        parse_contact_ref(text)
    assert caught.value.details["field"] == "contact"


@given(st.uuids())
def test_every_uuid_names_a_contact(value: UUID):
    """Digits-only UUIDs are no HubSpot ids: the dashes tell."""
    assert parse_contact_ref(str(value).upper()).value == str(value)
