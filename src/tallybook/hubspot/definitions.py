"""The calls about what a portal defines: its account, its properties, how its records may be associated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

from tallybook.domain.errors import SetupError
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.connection import account_path, associations_path, properties_path
from tallybook.hubspot.records import Account, AssociationType, AssociationTypes, Property, PropertyList

T = TypeVar("T")


class DefinitionCalls(ABC):
    """Calls that may be repeated: they raise CrmBusy, CrmUnavailable and SetupError as every read does."""

    @abstractmethod
    async def _read(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        operation: str,
        kind: CallKind,
        deadline_s: float,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> T:
        """The decoded answer of a call that may be repeated, within `deadline_s` in all."""

    async def account_details(self, *, kind: CallKind, deadline_s: float) -> Account:
        """Which portal the token belongs to."""
        return await self._read(
            "GET", account_path(), Account, operation="read the account", kind=kind, deadline_s=deadline_s
        )

    async def list_properties(
        self, object_type: str, *, kind: CallKind, deadline_s: float
    ) -> tuple[Property, ...]:
        """All properties of an object type."""
        found = await self._read(
            "GET",
            properties_path(object_type),
            PropertyList,
            operation=f"read the properties of {object_type}",
            kind=kind,
            deadline_s=deadline_s,
        )
        return found.results

    async def association_types(
        self, from_type: str, to_type: str, *, kind: CallKind, deadline_s: float
    ) -> tuple[AssociationType, ...]:
        """The kinds of association from one object type to another; each account has ids of its own."""
        found = await self._read(
            "GET",
            associations_path(from_type, to_type, "labels"),
            AssociationTypes,
            operation=f"read the associations of {from_type}",
            kind=kind,
            deadline_s=deadline_s,
        )
        return found.results

    async def create_property(
        self, object_type: str, definition: Mapping[str, object], *, kind: CallKind, deadline_s: float
    ) -> Property:
        """A new property of an object type. One that exists is CrmUnavailable with `details["status"]` 409.

        A lost answer is asked for again, so that 409 may also mean that this very call created it.
        """
        return await self._read(
            "POST",
            properties_path(object_type),
            Property,
            operation=f"create properties of {object_type}",
            kind=kind,
            deadline_s=deadline_s,
            body=dict(definition),
        )

    async def find_property(
        self, object_type: str, name: str, *, kind: CallKind, deadline_s: float
    ) -> Property | None:
        """One property; None when there is none of this name."""
        try:
            return await self._read(
                "GET",
                properties_path(object_type, name),
                Property,
                operation=f"read a property of {object_type}",
                kind=kind,
                deadline_s=deadline_s,
            )
        except SetupError as error:
            if error.details.get("status") == 404:
                return None
            raise

    async def describe_property(
        self, object_type: str, name: str, description: str, *, kind: CallKind, deadline_s: float
    ) -> None:
        """Replaces the description of a property; repeating that changes nothing, so it may be repeated."""
        await self._read(
            "PATCH",
            properties_path(object_type, name),
            Property,
            operation=f"describe a property of {object_type}",
            kind=kind,
            deadline_s=deadline_s,
            body={"description": description},
        )
