"""What a portal's properties have to be like so that the mirror can read and write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tallybook.domain.catalog import Catalog
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.fields import ID_PROPERTY, STAMP_PROPERTY
from tallybook.hubspot.records import Property

_TEXT = frozenset(("string", "enumeration"))
_NUMBER = frozenset(("number",))
# Times are sent as milliseconds: a number, an instant or a text can hold them.
_MILLISECONDS = frozenset(("number", "datetime", "string"))
_DATE = frozenset(("date", "string"))
_YES_OR_NO = frozenset(("bool", "enumeration", "string"))


@dataclass(frozen=True, slots=True)
class Expected:
    """One property: the types it may have there, and the values that have to be among its options.

    `is_written`: Tallybook writes it, so it must not be read-only. `is_essential`: without it the mirror does
    not work at all; without another one pulling goes on, while the lane pauses as soon as it has a value to
    write there. `is_own`: Tallybook's, and so created by it.
    """

    name: str
    types: frozenset[str]
    options: tuple[str, ...] = ()
    is_written: bool = True
    is_essential: bool = False
    is_own: bool = False
    is_unique: bool = False
    label: str = ""
    description: str = ""

    def definition(self, group: str) -> dict[str, object]:
        """How HubSpot is asked to create it, among the properties of this group."""
        return {
            "name": self.name,
            "label": self.label,
            "type": "string",
            "fieldType": "text",
            "groupName": group,
            "description": self.description,
            "hasUniqueValue": self.is_unique,
            "formField": False,
        }


_ID = Expected(
    ID_PROPERTY,
    frozenset(("string",)),
    is_essential=True,
    is_own=True,
    is_unique=True,
    label="Tallybook ID",
    description="Tallybook's own id of this record. Please leave it as it is.",
)
_STAMP = Expected(
    STAMP_PROPERTY,
    frozenset(("string",)),
    is_essential=True,
    is_own=True,
    label="Tallybook sync",
    description="By this Tallybook tells its own changes of credits from yours. Please leave it as it is.",
)
_MOCK_EXAM = (
    Expected("mock_set", _TEXT, tuple("ABCDEFGH")),
    Expected("exam_date", _DATE),
    Expected("start_time", _MILLISECONDS),
    Expected("end_time", _MILLISECONDS),
    Expected("location", _TEXT),
    Expected("address", _TEXT),
    Expected("capacity", _NUMBER),
    Expected("total_bookings", _NUMBER),
    Expected("is_active", _TEXT, ("true", "false", "scheduled")),
    Expected("scheduled_activation_datetime", frozenset(("datetime", "string"))),
)
_BOOKING = (
    Expected("booking_id", _TEXT),
    Expected("is_active", _TEXT, ("Active", "Completed", "Cancelled")),
    Expected("token_used", _TEXT),
    Expected("idempotency_key", _TEXT),
    Expected("attendance", _YES_OR_NO, ("Yes", "No")),
    Expected("attending_location", _TEXT),
    Expected("dominant_hand", _YES_OR_NO),
    Expected("token_refunded", _YES_OR_NO),
    Expected("token_refunded_at", _MILLISECONDS),
    Expected("token_refund_admin", _TEXT),
)


def expected_properties(catalog: Catalog) -> Mapping[MirroredType, tuple[Expected, ...]]:
    """What each object type needs under this catalog, our own properties last."""
    # A number is fine for an id of digits.
    plain = _TEXT | _NUMBER
    balances = (
        Expected(credit_type.hubspot_property, _NUMBER, is_essential=True)
        for credit_type in catalog.mirrored_credit_types
        if credit_type.hubspot_property is not None
    )
    contact = (
        Expected("email", _TEXT, is_essential=True),
        Expected("student_id", plain, is_essential=True),
        Expected("firstname", _TEXT),
        Expected("lastname", _TEXT),
        Expected("ndecc_exam_date", _DATE),
        *balances,
        _ID,
        _STAMP,
    )
    mock_types = tuple(mock_type.name for mock_type in catalog.mock_types)
    places = tuple(place.name for place in catalog.places)
    sessions = tuple(
        replace(each, options=places) if each.name == "location" else each for each in _MOCK_EXAM
    )
    return {
        MirroredType.CONTACT: contact,
        MirroredType.MOCK_EXAM: (Expected("mock_type", _TEXT, mock_types), *sessions, _ID),
        MirroredType.BOOKING: (*_BOOKING, _ID),
    }


def misfits(wanted: Expected, found: Property) -> list[tuple[str, str]]:
    """What is wrong with a property that exists, and what to do about it, each."""
    wrong: list[tuple[str, str]] = []
    name = wanted.name
    if found.type not in wanted.types:
        types = " or ".join(sorted(wanted.types))
        wrong.append((f"{name} is of the type {found.type}", f"Make it one of the type {types} in HubSpot."))
    if wanted.is_unique and not found.has_unique_value:
        wrong.append(
            (
                f"{name} is not unique",
                "Delete it in HubSpot, then run: tallybook doctor --fix. HubSpot cannot change that.",
            )
        )
    if wanted.is_written and found.is_read_only:
        wrong.append((f"{name} is read-only or calculated: it is never sent", "Make it editable in HubSpot."))
    if found.type == "enumeration":
        lacking = [each for each in wanted.options if each not in found.option_values]
        if lacking:
            names = ", ".join(lacking)
            wrong.append((f"{name} has no option for: {names}", "Add these options to it in HubSpot."))
    return wrong
