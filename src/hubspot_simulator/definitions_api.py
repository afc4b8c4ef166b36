"""Properties, schemas of custom objects, and account information."""

import re
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from hubspot_simulator.calls import Answer, Call, batch_answer, within
from hubspot_simulator.definitions import Property
from hubspot_simulator.errors import ApiError, invalid, not_found
from hubspot_simulator.links import default_link
from hubspot_simulator.portal import Portal
from hubspot_simulator.records import RecordStore
from hubspot_simulator.values import iso

UNIQUE_MAX = 10
TYPES = {
    "bool",
    "enumeration",
    "date",
    "datetime",
    "string",
    "number",
    "phone_number",
    "json",
    "object_coordinates",
}
FIELDS = {
    "booleancheckbox",
    "calculation_equation",
    "checkbox",
    "date",
    "file",
    "html",
    "number",
    "phonenumber",
    "radio",
    "select",
    "text",
    "textarea",
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


class OptionInput(msgspec.Struct, rename="camel"):
    """One option of an enumeration."""

    value: str
    label: str = ""


class PropertyInput(msgspec.Struct, rename="camel"):
    """A property to create."""

    name: str
    label: str
    type: str
    field_type: str
    group_name: str = ""
    description: str = ""
    options: list[OptionInput] = []
    has_unique_value: bool = False


class PropertyPatch(msgspec.Struct, rename="camel"):
    """What may change on a property."""

    label: str | None = None
    description: str | None = None
    group_name: str | None = None
    options: list[OptionInput] | None = None


class PropertyBatch(msgspec.Struct):
    """The body of the properties' batch/create."""

    inputs: list[PropertyInput]


class NameInput(msgspec.Struct):
    """A property by name."""

    name: str


class NameBatch(msgspec.Struct):
    """The body of the properties' batch/read and batch/archive."""

    inputs: list[NameInput]


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


# -- properties ------------------------------------------------------------------------------------


def properties_list(portal: Portal, call: Call) -> Answer:
    """All properties of a type; none of them is archived here."""
    store = portal.store(call.parts[1])
    every = [] if call.flag("archived") else [one.answer() for one in store.kind.properties.values()]
    return Answer(200, {"results": every})


def property_read(portal: Portal, call: Call) -> Answer:
    """One property."""
    return Answer(200, _property(portal.store(call.parts[1]), call.parts[2]).answer())


def _property(store: RecordStore, name: str) -> Property:
    prop = store.kind.properties.get(name)
    if prop is None:
        raise not_found(f"Property {name} does not exist in {store.kind.name}")
    return prop


def defined(portal: Portal, wanted: PropertyInput, group: str) -> Property:
    """A property from its input; ApiError 400 for a name, type or field HubSpot has not got."""
    if not _NAME.fullmatch(wanted.name):
        raise invalid(f"Property name {wanted.name} must be lower case letters, digits and underscores")
    if wanted.type not in TYPES or wanted.field_type not in FIELDS:
        raise invalid(f"Invalid property type {wanted.type} or field type {wanted.field_type}")
    if wanted.has_unique_value and wanted.type not in {"string", "number"}:
        raise invalid("Only string and number properties can hold unique values")
    return Property(
        name=wanted.name,
        label=wanted.label,
        type=wanted.type,
        field=wanted.field_type,
        group=wanted.group_name or group,
        description=wanted.description,
        options=tuple(one.value for one in wanted.options),
        labels=tuple(one.label or one.value for one in wanted.options),
        unique=wanted.has_unique_value,
        created_ms=portal.now_ms(),
    )


def _refuse_new(store: RecordStore, wanted: PropertyInput) -> None:
    if wanted.name in store.kind.properties:
        raise ApiError(
            409,
            f'Property named "{wanted.name}" already exists.',
            category="OBJECT_ALREADY_EXISTS",
            subCategory="Properties.PROPERTY_ALREADY_EXISTS",
        )
    own = [one for one in store.kind.properties.values() if one.unique and not one.hubspot_defined]
    if wanted.has_unique_value and len(own) >= UNIQUE_MAX:
        raise invalid(f"At most {UNIQUE_MAX} unique properties are supported for each object type")


def _add(portal: Portal, store: RecordStore, wanted: PropertyInput) -> Property:
    _refuse_new(store, wanted)
    prop = defined(portal, wanted, f"{store.kind.name}_information")
    store.kind.properties[prop.name] = prop
    store.add_column(prop.name)
    portal.version += 1
    return prop


def property_create(portal: Portal, call: Call) -> Answer:
    """Create a property; 409 when its name is taken."""
    store = portal.store(call.parts[1])
    return Answer(201, _add(portal, store, call.json(PropertyInput)).answer())


def property_update(portal: Portal, call: Call) -> Answer:
    """Change a property's texts and options; its name, type and uniqueness stay."""
    store = portal.store(call.parts[1])
    prop = _property(store, call.parts[2])
    if prop.hubspot_defined:
        raise invalid(f"Property {prop.name} is defined by HubSpot and read only")
    patch = call.json(PropertyPatch)
    prop.label = prop.label if patch.label is None else patch.label
    prop.description = prop.description if patch.description is None else patch.description
    prop.group = prop.group if patch.group_name is None else patch.group_name
    if patch.options is not None:
        prop.options = tuple(one.value for one in patch.options)
        prop.labels = tuple(one.label or one.value for one in patch.options)
    return Answer(200, prop.answer())


def property_archive(portal: Portal, call: Call) -> Answer:
    """Remove a property; its values go out of sight with it."""
    store = portal.store(call.parts[1])
    prop = store.kind.properties.get(call.parts[2])
    if prop is not None and prop.hubspot_defined:
        raise invalid(f"Property {prop.name} is defined by HubSpot and cannot be archived")
    if prop is not None:
        del store.kind.properties[prop.name]
        store.unique.pop(prop.name, None)
    return Answer(204)


def properties_batch_create(portal: Portal, call: Call) -> Answer:
    """Create several properties; those whose names are taken are listed in a 207."""
    store = portal.store(call.parts[1])
    inputs = call.json(PropertyBatch).inputs
    within(len(inputs), 100)
    results, errors = [], []
    for one in inputs:
        try:
            results.append(_add(portal, store, one).answer())
        except ApiError as error:
            errors.append(error.in_batch(None))
    return batch_answer(call, results, errors, status=201)


def properties_batch_read(portal: Portal, call: Call) -> Answer:
    """Several properties by name."""
    store = portal.store(call.parts[1])
    inputs = call.json(NameBatch).inputs
    found = [store.kind.properties[one.name].answer() for one in inputs if one.name in store.kind.properties]
    missing = [one.name for one in inputs if one.name not in store.kind.properties]
    errors = [not_found(f"Property {name} does not exist").in_batch(None) for name in missing]
    return batch_answer(call, found, errors)


def rules_list(portal: Portal, call: Call) -> Answer:
    """The validation rules of a type, by property."""
    rules = portal.rules.of_type(portal.store(call.parts[1]).kind.type_id)
    shown = [
        {"propertyName": name, "propertyValidationRules": [one.answer() for one in found]}
        for name, found in rules.items()
    ]
    return Answer(200, {"results": shown})


def rules_of_property(portal: Portal, call: Call) -> Answer:
    """The validation rules of one property."""
    store = portal.store(call.parts[1])
    prop = _property(store, call.parts[2])
    return Answer(200, {"results": [one.answer() for one in portal.rules.of(store.kind.type_id, prop.name)]})


# -- schemas ---------------------------------------------------------------------------------------


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
            {
                "id": str(one.type_id),
                "fromObjectTypeId": one.from_type,
                "toObjectTypeId": one.to_type,
                "name": one.name,
            }
            for one in portal.link_types.values()
            if one.from_type == kind.type_id
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


# -- account ---------------------------------------------------------------------------------------


def account_details(portal: Portal, call: Call) -> Answer:  # noqa: ARG001 - every handler takes both.
    """The portal's id and time zone."""
    offset = datetime.now(ZoneInfo(portal.settings.time_zone)).utcoffset()
    seconds = int(offset.total_seconds()) if offset else 0
    sign, minutes = "-" if seconds < 0 else "+", abs(seconds) // 60
    details = {
        "portalId": portal.settings.portal_id,
        "accountType": "STANDARD",
        "timeZone": portal.settings.time_zone,
        "companyCurrency": "CAD",
        "additionalCurrencies": [],
        "utcOffset": f"{sign}{minutes // 60:02}:{minutes % 60:02}",
        "utcOffsetMilliseconds": seconds * 1000,
        "uiDomain": "app.hubspot.com",
        "dataHostingLocation": "na1",
    }
    return Answer(200, details)


def account_usage(portal: Portal, call: Call) -> Answer:
    """How many calls the account has made today."""
    usage = {
        "name": "private-apps-api-calls-daily",
        "usageLimit": portal.limits.daily,
        "currentUsage": portal.limiter.used_today,
        "collectedAt": iso(call.at_ms),
        "fetchStatus": "SUCCESS",
    }
    return Answer(200, {"results": [usage]})
