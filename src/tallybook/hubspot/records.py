"""HubSpot's answers as values, as far as Tallybook reads them; everything unknown in them is ignored."""

from __future__ import annotations

from datetime import datetime

import msgspec


class HistoryEntry(msgspec.Struct, frozen=True, rename="camel"):
    """One former or present value of a property, and who wrote it."""

    timestamp: datetime
    value: str | None = None
    source_type: str | None = None
    source_id: str | None = None
    source_label: str | None = None
    updated_by_user_id: int | None = None


class AssociatedId(msgspec.Struct, frozen=True):
    """A record at the other end of an association."""

    id: str
    type: str | None = None


class AssociatedIds(msgspec.Struct, frozen=True):
    """The records of one type a record is associated with."""

    results: tuple[AssociatedId, ...] = ()


class Record(msgspec.Struct, frozen=True, rename="camel"):
    """One record of any type; `properties` holds only those that were asked for."""

    id: str
    updated_at: datetime
    created_at: datetime | None = None
    archived: bool = False
    archived_at: datetime | None = None
    properties: dict[str, str | None] = {}
    properties_with_history: dict[str, tuple[HistoryEntry, ...]] | None = None
    associations: dict[str, AssociatedIds] | None = None


class _NextPage(msgspec.Struct, frozen=True):
    after: str


class Paging(msgspec.Struct, frozen=True):
    next: _NextPage | None = None


class RecordPage(msgspec.Struct, frozen=True):
    """A page of records, in the order HubSpot gave them; of a search also how many match in all."""

    results: tuple[Record, ...] = ()
    paging: Paging | None = None
    total: int | None = None

    @property
    def next_after(self) -> str | None:
        """What to send as `after` for the next page; None on the last."""
        return self.paging.next.after if self.paging and self.paging.next else None


class SearchPage(RecordPage, frozen=True):
    """A page of a search, and when HubSpot gave it by its own clock; None when it did not say."""

    answered_at: datetime | None = None


class Account(msgspec.Struct, frozen=True, rename="camel"):
    """The portal a token belongs to."""

    portal_id: int
    account_type: str | None = None
    time_zone: str | None = None


class PropertyOption(msgspec.Struct, frozen=True):
    """One value that an enumeration allows."""

    value: str


class PropertyRights(msgspec.Struct, frozen=True, rename="camel"):
    """What of a property may be changed."""

    read_only_value: bool = False


class Property(msgspec.Struct, frozen=True, rename="camel"):
    """A property of an object type."""

    name: str
    type: str
    field_type: str | None = None
    label: str | None = None
    group_name: str | None = None
    options: tuple[PropertyOption, ...] = ()
    description: str | None = None
    has_unique_value: bool = False
    calculated: bool = False
    archived: bool = False
    modification_metadata: PropertyRights | None = None

    @property
    def is_read_only(self) -> bool:
        """Whether HubSpot refuses every value that is sent."""
        rights = self.modification_metadata
        return self.calculated or (rights is not None and rights.read_only_value)

    @property
    def option_values(self) -> frozenset[str]:
        """What an enumeration allows."""
        return frozenset(option.value for option in self.options)


class PropertyList(msgspec.Struct, frozen=True):
    """All properties of an object type."""

    results: tuple[Property, ...] = ()


class AssociationType(msgspec.Struct, frozen=True, rename="camel"):
    """A kind of association from one object type to another; without a label it is the plain one."""

    type_id: int
    category: str = "USER_DEFINED"
    label: str | None = None

    def spec(self) -> dict[str, object]:
        """How a write names it."""
        return {"associationCategory": self.category, "associationTypeId": self.type_id}


class AssociationTypes(msgspec.Struct, frozen=True):
    """The kinds of association from one object type to another."""

    results: tuple[AssociationType, ...] = ()
