"""Properties, their groups and validation rules."""

import re

import msgspec

from hubspot_simulator.calls import Answer, Call, batch_answer, within
from hubspot_simulator.definitions import Property
from hubspot_simulator.errors import ApiError, invalid, not_found
from hubspot_simulator.portal import Portal
from hubspot_simulator.records import RecordStore

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


class GroupInput(msgspec.Struct, rename="camel"):
    """A group of properties to create."""

    name: str
    label: str


class GroupPatch(msgspec.Struct, rename="camel"):
    """What may change on a group."""

    label: str | None = None


class PropertyBatch(msgspec.Struct):
    """The body of the properties' batch/create."""

    inputs: list[PropertyInput]


class NameInput(msgspec.Struct):
    """A property by name."""

    name: str


class NameBatch(msgspec.Struct):
    """The body of the properties' batch/read and batch/archive."""

    inputs: list[NameInput]


# -- properties ------------------------------------------------------------------------------------


def properties_list(portal: Portal, call: Call) -> Answer:
    """All properties of a type, or the archived ones."""
    kind = portal.store(call.parts[1]).kind
    every = kind.archived if call.flag("archived") else kind.properties
    return Answer(200, {"results": [one.answer() for one in every.values()]})


def property_read(portal: Portal, call: Call) -> Answer:
    """One property; with `archived=true` an archived one."""
    store, name = portal.store(call.parts[1]), call.parts[2]
    if call.flag("archived") and name in store.kind.archived:
        return Answer(200, store.kind.archived[name].answer())
    return Answer(200, _property(store, name).answer())


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
    prop = defined(portal, wanted, store.kind.first_group())
    if prop.group not in store.kind.group_labels():
        raise invalid(f"Property group {prop.group} does not exist in {store.kind.name}")
    store.kind.properties[prop.name] = prop
    store.kind.archived.pop(prop.name, None)
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
    if patch.group_name is not None and patch.group_name not in store.kind.group_labels():
        raise invalid(f"Property group {patch.group_name} does not exist in {store.kind.name}")
    prop.group = prop.group if patch.group_name is None else patch.group_name
    if patch.options is not None:
        prop.options = tuple(one.value for one in patch.options)
        prop.labels = tuple(one.label or one.value for one in patch.options)
    prop.updated_ms = call.at_ms
    portal.version += 1
    return Answer(200, prop.answer())


def property_archive(portal: Portal, call: Call) -> Answer:
    """Archive a property; its values are gone."""
    _archive(portal, portal.store(call.parts[1]), call.parts[2])
    return Answer(204)


def _archive(portal: Portal, store: RecordStore, name: str) -> None:
    prop = store.kind.properties.get(name)
    if prop is None:
        return
    if prop.hubspot_defined:
        raise invalid(f"Property {prop.name} is defined by HubSpot and cannot be archived")
    portal.version += 1
    store.drop_column(name)
    store.kind.archived[name] = store.kind.properties.pop(name)
    prop.archived = True


def properties_batch_archive(portal: Portal, call: Call) -> Answer:
    """Archive several properties; those there are not are passed over."""
    inputs = call.json(NameBatch).inputs
    within(len(inputs), 100)
    for one in inputs:
        _archive(portal, portal.store(call.parts[1]), one.name)
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


# -- groups ------------------------------------------------------------------------------------------


def _group(name: str, label: str) -> dict[str, object]:
    return {"name": name, "label": label, "displayOrder": -1, "archived": False}


def groups_list(portal: Portal, call: Call) -> Answer:
    """The groups of a type's properties."""
    groups = portal.store(call.parts[1]).kind.group_labels()
    return Answer(200, {"results": [_group(*one) for one in groups.items()]})


def group_read(portal: Portal, call: Call) -> Answer:
    """One group."""
    kind, name = portal.store(call.parts[1]).kind, call.parts[3]
    if name not in kind.group_labels():
        raise not_found(f"Property group {name} does not exist in {kind.name}")
    return Answer(200, _group(name, kind.group_labels()[name]))


def group_create(portal: Portal, call: Call) -> Answer:
    """Create a group; 409 when its name is taken."""
    kind, wanted = portal.store(call.parts[1]).kind, call.json(GroupInput)
    if wanted.name in kind.group_labels():
        sentence = f'Property group named "{wanted.name}" already exists.'
        raise ApiError(409, sentence, category="OBJECT_ALREADY_EXISTS")
    kind.groups[wanted.name] = wanted.label
    portal.version += 1
    return Answer(201, _group(wanted.name, wanted.label))


def group_update(portal: Portal, call: Call) -> Answer:
    """Give a group another label."""
    patch, kind, name = call.json(GroupPatch), portal.store(call.parts[1]).kind, call.parts[3]
    if patch.label is not None and name in kind.group_labels():
        kind.groups[name] = patch.label
        portal.version += 1
    return group_read(portal, call)


def group_archive(portal: Portal, call: Call) -> Answer:
    """Remove a group that no property is in."""
    kind, name = portal.store(call.parts[1]).kind, call.parts[3]
    if any(prop.group == name for prop in kind.properties.values()):
        raise invalid(f"Property group {name} has properties and cannot be archived")
    kind.groups.pop(name, None)
    portal.version += 1
    return Answer(204)


# -- validation rules --------------------------------------------------------------------------------


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
