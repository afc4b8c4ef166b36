"""Who a contact is: e-mail, student id, the pair of both, and the ways to name one."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from tallybook.domain.errors import ValidationError

_STUDENT_ID = re.compile(r"[A-Za-z0-9]{1,32}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_HUBSPOT_ID = re.compile(r"[1-9][0-9]{0,19}", re.ASCII)
_LONGEST_EMAIL = 254


def normalise_email(text: str, *, field: str = "email") -> str:
    """The e-mail trimmed and lower-cased. Raises ValidationError when it cannot be one."""
    email = text.strip().lower()
    problem = _email_problem(email)
    if problem:
        raise ValidationError(
            f"{field} is not an e-mail address: it {problem}.", field=field, problem=problem
        )
    return email


def _email_problem(email: str) -> str | None:
    name, at, domain = email.partition("@")
    if not 3 <= len(email) <= _LONGEST_EMAIL:
        return f"must have 3 to {_LONGEST_EMAIL} characters"
    if not at or "@" in domain:
        return "must have exactly one @"
    if not name or not domain:
        return "must have text before and after the @"
    if not is_clean(email) or " " in email:
        return "must not contain spaces or control characters"
    return None


def is_clean(text: str) -> bool:
    """Whether the text has only visible characters and plain spaces."""
    return not any(character != " " and unicodedata.category(character)[0] in "CZ" for character in text)


def normalise_student_id(text: str, *, field: str = "student_id") -> str:
    """The student id trimmed and upper-cased: 1 to 32 letters A-Z and digits. Raises ValidationError."""
    student_id = text.strip()
    # Checked before upper(): 'ß'.upper() is 'SS', which would let two people share an id.
    if not _STUDENT_ID.fullmatch(student_id):
        raise ValidationError(
            f"{field} must be 1 to 32 letters A-Z or digits.",
            field=field,
            problem="must be 1 to 32 letters or digits",
        )
    return student_id.upper()


@dataclass(frozen=True, slots=True)
class Pair:
    """What identifies a student: student id and e-mail together, both normalised."""

    student_id: str
    email: str

    @classmethod
    def parse(cls, student_id: str, email: str) -> Pair:
        """The normalised pair. Raises ValidationError."""
        return cls(normalise_student_id(student_id), normalise_email(email))


class ContactRefKind(StrEnum):
    """By what a contact is named."""

    ID = "id"
    HUBSPOT_ID = "hubspot_id"
    STUDENT_ID = "student_id"
    EMAIL = "email"


@dataclass(frozen=True, slots=True)
class ContactRef:
    """A contact as somebody named it; `value` is normalised text of that kind."""

    kind: ContactRefKind
    value: str


def parse_contact_ref(text: str, *, field: str = "contact") -> ContactRef:
    """A UUID, a HubSpot id, `student:1599005` or `email:a@b.c`. Raises ValidationError for anything else."""
    ref = text.strip()
    kind, colon, rest = ref.partition(":")
    if colon and kind.lower() == "student":
        return ContactRef(ContactRefKind.STUDENT_ID, normalise_student_id(rest, field=field))
    if colon and kind.lower() == "email":
        return ContactRef(ContactRefKind.EMAIL, normalise_email(rest, field=field))
    if _UUID.fullmatch(ref):
        return ContactRef(ContactRefKind.ID, str(UUID(ref)))
    if _HUBSPOT_ID.fullmatch(ref):
        return ContactRef(ContactRefKind.HUBSPOT_ID, ref)
    raise ValidationError(
        f"{field} must be a UUID, a HubSpot id, student:1599005 or email:a@b.c.",
        field=field,
        problem="is none of UUID, HubSpot id, student:..., email:...",
    )
