"""Where HubSpot is, as whom we call it, and how its addresses are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

from tallybook.domain.mirror import MirroredType

API_VERSION = "2026-09"
"""HubSpot's date-based version; one lives 18 months, so this line is what has to change."""

CONTACTS = "contacts"


@dataclass(frozen=True, slots=True)
class HubSpotConnection:
    """What the client needs to know; object types are `2-<number>` or a fully qualified name."""

    base_url: str
    token: str = field(repr=False)
    mock_exams_object: str = "2-50158913"
    bookings_object: str = "2-50158943"
    connect_timeout_s: float = 3.0
    answer_timeout_s: float = 15.0
    """The longest one call may take in all; a budget has to count the call at least as long."""
    max_connections: int = 32

    def object_type(self, mirrored: MirroredType) -> str:
        """HubSpot's name of what is mirrored."""
        return {
            MirroredType.CONTACT: CONTACTS,
            MirroredType.MOCK_EXAM: self.mock_exams_object,
            MirroredType.BOOKING: self.bookings_object,
        }[mirrored]


def objects_path(object_type: str, *rest: str) -> str:
    """The address of the records of a type, such as `/crm/objects/2026-09/contacts/batch/read`."""
    return "/".join((f"/crm/objects/{API_VERSION}", quote(object_type, safe=""), *rest))


def properties_path(object_type: str, *rest: str) -> str:
    """The address of the properties of a type, or of one of them."""
    return "/".join((f"/crm/properties/{API_VERSION}", quote(object_type, safe=""), *rest))


def associations_path(from_type: str, to_type: str, rest: str) -> str:
    """The address of the associations from one type to another."""
    return f"/crm/associations/{API_VERSION}/{quote(from_type, safe='')}/{quote(to_type, safe='')}/{rest}"


def account_path() -> str:
    """The address that tells which portal the token belongs to."""
    return f"/account-info/{API_VERSION}/details"
