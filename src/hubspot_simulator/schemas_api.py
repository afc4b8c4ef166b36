"""Schemas of custom objects."""

from typing import Any

import msgspec

from hubspot_simulator.calls import Answer, Call, batch_answer, within
from hubspot_simulator.definitions import LinkType
from hubspot_simulator.definitions_api import PropertyInput, defined
from hubspot_simulator.errors import ApiError, invalid, not_found
from hubspot_simulator.links import default_link, drop_kind, new_kind
from hubspot_simulator.portal import Portal
from hubspot_simulator.records import RecordStore
from hubspot_simulator.values import iso, whole_id


class Labels(msgspec.Struct):
    """A custom object's names for people."""

    singular: str = ""
    plural: str = ""


class SchemaInput(msgspec.Struct, rename="camel"):
    """A custom object to create."""

    name: str
    labels: Labels
    properties: list[PropertyInput] = []
    required_properties: list[str] = []
    searchable_properties: list[str] = []
    primary_display_property: str | None = None
    associated_objects: list[str] = []


class SchemaPatch(msgspec.Struct, rename="camel"):
    """What may change on a custom object."""

    labels: Labels | None = None
    required_properties: list[str] | None = None
    searchable_properties: list[str] | None = None
    primary_display_property: str | None = None


class AssociationInput(msgspec.Struct, rename="camel"):
    """An association to define between two types."""

    from_object_type_id: str
    to_object_type_id: str
    name: str = ""


class SchemaIds(msgspec.Struct):
    """The body of batch/read."""

    inputs: list[str]


def _schema(portal: Portal, store: RecordStore) -> dict[str, Any]:
    kind = store.kind
    return {
        "id": kind.type_id.removeprefix("2-"),
        "objectTypeId": kind.type_id,
        "fullyQualifiedName": kind.full_name(portal.settings.portal_id),
        "name": kind.name,
        "labels": {"singular": kind.singular, "plural": kind.plural},
        "primaryDisplayProperty": kind.primary,
        "secondaryDisplayProperties": [],
        "requiredProperties": list(kind.required),
        "searchableProperties": list(kind.searchable),
        "properties": [one.answer() for one in kind.properties.values()],
        "associations": [
            _association(portal, one) for one in portal.link_types.values() if one.from_type == kind.type_id
        ],
        "allowsSensitiveProperties": False,
        "archived": False,
        "portalId": portal.settings.portal_id,
        "createdAt": iso(kind.created_ms),
        "updatedAt": iso(kind.created_ms),
    }


def schemas_list(portal: Portal, call: Call) -> Answer:
    """The schemas of the custom objects."""
    custom = [store for store in portal.stores.values() if store.kind.custom]
    return Answer(200, {"results": [] if call.flag("archived") else [_schema(portal, one) for one in custom]})


def schema_read(portal: Portal, call: Call) -> Answer:
    """One schema by object type id, name or fully qualified name."""
    return Answer(200, _schema(portal, portal.store(call.parts[1])))


def schema_create(portal: Portal, call: Call) -> Answer:
    """Create a custom object; 409 when its name is taken."""
    wanted = call.json(SchemaInput)
    if any(store.kind.name == wanted.name for store in portal.stores.values()):
        raise ApiError(409, f"Object type {wanted.name} already exists", category="OBJECT_ALREADY_EXISTS")
    linked = [portal.store(name).kind.type_id for name in wanted.associated_objects]
    more = [defined(portal, one, f"{wanted.name}_information") for one in wanted.properties]
    kind = portal.new_type(
        name=wanted.name,
        singular=wanted.labels.singular or wanted.name,
        plural=wanted.labels.plural or wanted.name,
        primary=wanted.primary_display_property or (more[0].name if more else "hs_object_id"),
        more=more,
    )
    kind.required = tuple(wanted.required_properties)
    kind.searchable = tuple(wanted.searchable_properties)
    store = portal.add_type(kind)
    portal.version += 1
    for type_id in linked:
        default_link(portal, kind.type_id, type_id)
    return Answer(201, _schema(portal, store))


def schemas_batch_read(portal: Portal, call: Call) -> Answer:
    """Several schemas by name or id; ApiError 400 for one there is not."""
    inputs = call.json(SchemaIds).inputs
    within(len(inputs), 100)
    return batch_answer(call, [_schema(portal, _custom(portal, one)) for one in inputs], [])


def _custom(portal: Portal, name: str) -> RecordStore:
    store = portal.store(name)
    if not store.kind.custom:
        raise invalid(f"{name} is no custom object")
    return store


def schema_update(portal: Portal, call: Call) -> Answer:
    """Change the names and the required, searchable and primary properties of a custom object."""
    store, patch = _custom(portal, call.parts[1]), call.json(SchemaPatch)
    kind = store.kind
    named = [*(patch.required_properties or ()), *(patch.searchable_properties or ())]
    unknown = [one for one in named if one not in kind.properties]
    if unknown:
        raise invalid(f"Properties do not exist in {kind.name}: {', '.join(unknown)}")
    if patch.labels is not None:
        kind.singular = patch.labels.singular or kind.singular
        kind.plural = patch.labels.plural or kind.plural
    if patch.required_properties is not None:
        kind.required = tuple(patch.required_properties)
    if patch.searchable_properties is not None:
        kind.searchable = tuple(patch.searchable_properties)
    kind.primary = patch.primary_display_property or kind.primary
    portal.version += 1
    return Answer(200, _schema(portal, store))


def schema_archive(portal: Portal, call: Call) -> Answer:
    """Remove a custom object that has no records."""
    store = _custom(portal, call.parts[1])
    if len(store.ids) > len(store.archived):
        raise invalid(f"{store.kind.name} still has records and cannot be deleted")
    for one in list(portal.link_types.values()):
        if store.kind.type_id in {one.from_type, one.to_type}:
            drop_kind(portal, one.type_id)
    del portal.stores[store.kind.type_id]
    portal.version += 1
    return Answer(204)


def _association(portal: Portal, kind: LinkType) -> dict[str, Any]:
    return {
        "id": str(kind.type_id),
        "fromObjectTypeId": kind.from_type,
        "toObjectTypeId": kind.to_type,
        "name": kind.name,
        "createdAt": iso(portal.stores[kind.from_type].kind.created_ms),
    }


def schema_association_create(portal: Portal, call: Call) -> Answer:
    """Define an association between a custom object and another type."""
    _custom(portal, call.parts[1])
    wanted = call.json(AssociationInput)
    pair = [
        portal.store(name).kind.type_id for name in (wanted.from_object_type_id, wanted.to_object_type_id)
    ]
    kind = new_kind(portal, *pair, labels=(wanted.name or None, None), name=wanted.name)
    return Answer(201, _association(portal, kind))


def schema_association_archive(portal: Portal, call: Call) -> Answer:
    """Remove an association by its id, from all records too."""
    _custom(portal, call.parts[1])
    type_id = whole_id(call.parts[3])
    if type_id not in portal.link_types:
        raise not_found(f"Association {call.parts[3]} does not exist")
    drop_kind(portal, type_id)
    return Answer(204)
