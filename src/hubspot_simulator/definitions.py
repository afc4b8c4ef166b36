"""What a portal defines: object types, their properties and the kinds of association between them."""

from typing import Any

import msgspec

from hubspot_simulator.values import iso

CONTACTS = "0-1"
MOCK_EXAMS = "2-50158913"
BOOKINGS = "2-50158943"
DEFINED_AT_MS = 1_735_725_600_000


class Property(msgspec.Struct):
    """One property of an object type; `rollup` is (object type id, property) it is calculated from."""

    name: str
    label: str
    type: str = "string"
    field: str = "text"
    group: str = ""
    description: str = ""
    options: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    unique: bool = False
    read_only: bool = False
    hubspot_defined: bool = False
    rollup: tuple[str, str] | None = None
    created_ms: int = DEFINED_AT_MS
    updated_ms: int | None = None
    archived: bool = False

    def answer(self) -> dict[str, Any]:
        """The property as the properties and schemas APIs show it."""
        labels = self.labels or self.options
        options = [
            {"label": label, "value": value, "displayOrder": i, "hidden": False, "description": ""}
            for i, (value, label) in enumerate(zip(self.options, labels, strict=True))
        ]
        return {
            "name": self.name,
            "label": self.label,
            "type": self.type,
            "fieldType": self.field,
            "description": self.description,
            "groupName": self.group,
            "options": options,
            "displayOrder": -1,
            "calculated": self.rollup is not None,
            "externalOptions": False,
            "archived": self.archived,
            "hasUniqueValue": self.unique,
            "hidden": False,
            "hubspotDefined": self.hubspot_defined,
            "modificationMetadata": {
                "archivable": not self.hubspot_defined,
                "readOnlyDefinition": self.hubspot_defined,
                "readOnlyOptions": self.hubspot_defined,
                "readOnlyValue": self.read_only or self.rollup is not None,
            },
            "formField": not self.read_only,
            "dataSensitivity": "non_sensitive",
            "createdAt": iso(self.created_ms),
            "updatedAt": iso(self.created_ms if self.updated_ms is None else self.updated_ms),
        }


class ObjectType(msgspec.Struct):
    """One object type: contacts, or a custom object with its schema."""

    type_id: str
    name: str
    singular: str
    plural: str
    properties: dict[str, Property]
    primary: str
    required: tuple[str, ...] = ()
    searchable: tuple[str, ...] = ()
    created_ms: int = DEFINED_AT_MS
    groups: dict[str, str] = {}
    archived: dict[str, Property] = {}

    def group_labels(self) -> dict[str, str]:
        """The groups of properties and their labels: those that were made, and those properties are in."""
        used = {one.group: one.group.replace("_", " ").capitalize() for one in self.properties.values()}
        return {**used, **self.groups}

    def first_group(self) -> str:
        """Where a property goes that names no group."""
        return next(iter(self.group_labels()), f"{self.name}_information")

    @property
    def custom(self) -> bool:
        """Only custom objects have a schema of their own."""
        return self.type_id.startswith("2-")

    @property
    def created_name(self) -> str:
        """The property that holds the time of creation."""
        return "hs_createdate" if self.custom else "createdate"

    @property
    def modified_name(self) -> str:
        """The property that holds the time of the last change."""
        return "hs_lastmodifieddate" if self.custom else "lastmodifieddate"

    @property
    def error_text(self) -> str:
        """How HubSpot's sentences about unique values name the type."""
        return self.type_id if self.custom else "ObjectTypeId{legacyObjectType=CONTACT}"

    @property
    def shout(self) -> str:
        """How HubSpot's not-found sentences name the type."""
        return self.singular.upper()

    def full_name(self, portal_id: int) -> str:
        """The fully qualified name, `p<portal>_<name>` for custom objects."""
        return f"p{portal_id}_{self.name}" if self.custom else "contacts"


class LinkType(msgspec.Struct):
    """One kind of association in one direction; `label` is None for the unlabelled one."""

    type_id: int
    from_type: str
    to_type: str
    inverse_id: int
    label: str | None = None
    category: str = "USER_DEFINED"
    name: str = ""

    def answer(self) -> dict[str, Any]:
        """The kind as read answers show it."""
        return {"category": self.category, "typeId": self.type_id, "label": self.label}


def system_properties(*, custom: bool, group: str) -> list[Property]:
    """The read-only properties HubSpot keeps itself."""
    names = (
        [("hs_createdate", "Object create date"), ("hs_lastmodifieddate", "Object last modified date")]
        if custom
        else [("createdate", "Create Date"), ("lastmodifieddate", "Last Modified Date")]
    )
    typed = [
        ("hs_object_id", "Record ID", "number"),
        *((*one, "datetime") for one in names),
        ("hs_merged_object_ids", "Merged record IDs", "enumeration"),
    ]
    return [
        Property(
            name,
            label,
            kind,
            {"number": "number", "datetime": "date"}.get(kind, "checkbox"),
            group,
            read_only=True,
            hubspot_defined=True,
        )
        for name, label, kind in typed
    ]
