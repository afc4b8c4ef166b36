"""Associations v4: between two records, in batches, and the kinds there are."""

from collections.abc import Sequence
from typing import Any

import msgspec

from hubspot_simulator.calls import Answer, Call, LinkSpec, ObjectRef, batch_answer, within
from hubspot_simulator.definitions import LinkType
from hubspot_simulator.errors import invalid, not_found
from hubspot_simulator.links import End, default_link, drop_kind, link, linked, new_kind, unlink
from hubspot_simulator.portal import Portal
from hubspot_simulator.records import Record, RecordStore
from hubspot_simulator.values import whole_id

READ_MAX = 1_000
WRITE_MAX = 2_000
PAGE_MAX = 500


class ReadInput(msgspec.Struct):
    """A record whose associations are asked for."""

    id: str | int
    after: str | None = None


class ReadBatch(msgspec.Struct):
    """The body of batch/read."""

    inputs: list[ReadInput]


class LinkInput(msgspec.Struct, rename={"from_": "from"}):
    """Two records and the kinds of association between them."""

    from_: ObjectRef
    to: ObjectRef
    types: list[LinkSpec] = []


class LinkBatch(msgspec.Struct):
    """The body of batch/create, batch/associate/default and batch/labels/archive."""

    inputs: list[LinkInput]


class LabelInput(msgspec.Struct, rename="camel"):
    """A label to create."""

    label: str
    name: str = ""
    inverse_label: str | None = None


class LabelPatch(msgspec.Struct, rename="camel"):
    """A label to change."""

    association_type_id: int
    label: str
    inverse_label: str | None = None


class UnlinkInput(msgspec.Struct, rename={"from_": "from"}):
    """A record and those it is to be separated from."""

    from_: ObjectRef
    to: list[ObjectRef]


class UnlinkBatch(msgspec.Struct):
    """The body of batch/archive."""

    inputs: list[UnlinkInput]


def find_end(store: RecordStore, raw: str | int) -> End:
    """One end of an association; ApiError 404 when there is no live record with this id."""
    wanted = whole_id(str(raw))
    record = None if wanted is None else store.live(wanted)
    if record is None:
        raise not_found(f"{store.kind.singular} {raw} does not exist")
    return store, record


def _kinds(portal: Portal, a: End, b: End, specs: Sequence[LinkSpec]) -> list[int]:
    """The kinds named; ApiError 400 when one of them is not between these two types."""
    pair = (a[0].kind.type_id, b[0].kind.type_id)
    for one in specs:
        kind = portal.link_types.get(one.association_type_id)
        if kind is None or (kind.from_type, kind.to_type) != pair:
            raise invalid(f"One or more association types are not valid: {one.association_type_id}")
    return [one.association_type_id for one in specs]


def _labels(portal: Portal, a: End, b: End, kinds: Sequence[int]) -> dict[str, Any]:
    named = [portal.link_types[one].label for one in kinds]
    return {
        "fromObjectTypeId": a[0].kind.type_id,
        "fromObjectId": str(a[1].id),
        "toObjectTypeId": b[0].kind.type_id,
        "toObjectId": str(b[1].id),
        "labels": [one for one in named if one is not None],
    }


def _both_ways(kind: LinkType, a: End, b: End) -> list[dict[str, Any]]:
    def one_way(type_id: int, from_id: int, to_id: int) -> dict[str, Any]:
        return {
            "from": {"id": str(from_id)},
            "to": {"id": str(to_id)},
            "associationSpec": {"associationCategory": kind.category, "associationTypeId": type_id},
        }

    return [one_way(kind.type_id, a[1].id, b[1].id), one_way(kind.inverse_id, b[1].id, a[1].id)]


def _targets(
    portal: Portal, record: Record, to_type: str, after: int, limit: int
) -> tuple[list[Any], dict[str, Any]]:
    every = [pair for pair in linked(portal, record, to_type) if pair[0] >= after]
    shown = [
        {
            "toObjectId": str(other),
            "associationTypes": [portal.link_types[one].answer() for one in kinds],
        }
        for other, kinds in every[:limit]
    ]
    more = {"paging": {"next": {"after": str(every[limit][0])}}} if len(every) > limit else {}
    return shown, more


# -- one pair: /objects/{from}/{id}/associations/... -----------------------------------------------


def links_list(portal: Portal, call: Call) -> Answer:
    """The records of a type that one record is associated with."""
    store, record = find_end(portal.store(call.parts[1]), call.parts[2])
    to_type = portal.store(call.parts[4]).kind.type_id
    limit = call.whole("limit", PAGE_MAX)
    if not 1 <= limit <= PAGE_MAX:
        raise invalid(f"limit must be between 1 and {PAGE_MAX}")
    shown, more = _targets(portal, record, to_type, call.whole("after", 0), limit)
    del store
    return Answer(200, {"results": shown, **more})


def link_default(portal: Portal, call: Call) -> Answer:
    """Associate two records without a label; the body is empty."""
    a = find_end(portal.store(call.parts[1]), call.parts[2])
    b = find_end(portal.store(call.parts[5]), call.parts[6])
    link(portal, a, b, (), at_ms=call.at_ms, source=call.source)
    kind = default_link(portal, a[0].kind.type_id, b[0].kind.type_id)
    return batch_answer(call, _both_ways(kind, a, b), [])


def link_labelled(portal: Portal, call: Call) -> Answer:
    """Associate two records with the kinds in the body."""
    a = find_end(portal.store(call.parts[1]), call.parts[2])
    b = find_end(portal.store(call.parts[4]), call.parts[5])
    kinds = _kinds(portal, a, b, call.json(list[LinkSpec]))
    link(portal, a, b, kinds, at_ms=call.at_ms, source=call.source)
    return Answer(201, _labels(portal, a, b, kinds))


def link_archive(portal: Portal, call: Call) -> Answer:
    """Separate two records."""
    a = find_end(portal.store(call.parts[1]), call.parts[2])
    b = find_end(portal.store(call.parts[4]), call.parts[5])
    unlink(portal, a, b, at_ms=call.at_ms, source=call.source)
    return Answer(204)


# -- batches: /associations/{from}/{to}/batch/... --------------------------------------------------


def batch_links_read(portal: Portal, call: Call) -> Answer:
    """The associations of many records; one without any is an error of a 207, as seen at HubSpot."""
    store, to_store = portal.store(call.parts[1]), portal.store(call.parts[2])
    inputs = call.json(ReadBatch).inputs
    within(len(inputs), READ_MAX)
    results: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for one in inputs:
        wanted = whole_id(str(one.id))
        record = None if wanted is None else store.live(wanted)
        after = whole_id(one.after or "0") or 0
        shown, more = _targets(portal, record, to_store.kind.type_id, after, PAGE_MAX) if record else ([], {})
        if shown:
            results.append({"from": {"id": str(one.id)}, "to": shown, **more})
        else:
            errors.append(_no_links(store, to_store, str(one.id)))
    return batch_answer(call, results, errors)


def _no_links(store: RecordStore, to_store: RecordStore, text: str) -> dict[str, Any]:
    return {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
        "message": f"No {to_store.kind.singular.lower()} is associated with "
        f"{store.kind.singular.lower()} {text}.",
        "context": {
            "fromObjectId": [text],
            "fromObjectType": [store.kind.name],
            "toObjectType": [to_store.kind.name],
        },
        "errors": [],
        "links": {},
    }


def _ends(portal: Portal, call: Call, inputs: Sequence[LinkInput]) -> list[tuple[End, End, LinkInput]]:
    store, to_store = portal.store(call.parts[1]), portal.store(call.parts[2])
    within(len(inputs), WRITE_MAX)
    return [(find_end(store, one.from_.id), find_end(to_store, one.to.id), one) for one in inputs]


def batch_links_create(portal: Portal, call: Call) -> Answer:
    """Associate many pairs; a record that does not exist refuses the whole batch."""
    pairs = _ends(portal, call, call.json(LinkBatch).inputs)
    kinds = [_kinds(portal, a, b, one.types) for a, b, one in pairs]
    for (a, b, _), types in zip(pairs, kinds, strict=True):
        link(portal, a, b, types, at_ms=call.at_ms, source=call.source)
    labels = [_labels(portal, a, b, types) for (a, b, _), types in zip(pairs, kinds, strict=True)]
    return batch_answer(call, labels, [], status=201)


def batch_links_default(portal: Portal, call: Call) -> Answer:
    """Associate many pairs without a label."""
    results: list[dict[str, Any]] = []
    for a, b, _ in _ends(portal, call, call.json(LinkBatch).inputs):
        link(portal, a, b, (), at_ms=call.at_ms, source=call.source)
        results.extend(_both_ways(default_link(portal, a[0].kind.type_id, b[0].kind.type_id), a, b))
    return batch_answer(call, results, [])


def batch_links_archive(portal: Portal, call: Call) -> Answer:
    """Separate many records; pairs that are not associated are passed over."""
    store, to_store = portal.store(call.parts[1]), portal.store(call.parts[2])
    inputs = call.json(UnlinkBatch).inputs
    within(len(inputs), WRITE_MAX)
    for one in inputs:
        for other in one.to:
            a, b = find_end(store, one.from_.id), find_end(to_store, other.id)
            unlink(portal, a, b, at_ms=call.at_ms, source=call.source)
    return Answer(204)


def batch_labels_archive(portal: Portal, call: Call) -> Answer:
    """Take some kinds of association away; the unlabelled one takes all the others of the pair with it."""
    for a, b, one in _ends(portal, call, call.json(LinkBatch).inputs):
        kinds = _kinds(portal, a, b, one.types)
        every = any(portal.link_types[kind].label is None for kind in kinds)
        unlink(portal, a, b, None if every else kinds, at_ms=call.at_ms, source=call.source)
    return Answer(204)


# -- labels ------------------------------------------------------------------------------------------


def _pair(portal: Portal, call: Call) -> tuple[str, str]:
    return portal.store(call.parts[1]).kind.type_id, portal.store(call.parts[2]).kind.type_id


def labels_list(portal: Portal, call: Call) -> Answer:
    """The kinds of association from one type to another."""
    pair = _pair(portal, call)
    default_link(portal, *pair)
    kinds = [one.answer() for one in portal.link_types.values() if (one.from_type, one.to_type) == pair]
    return Answer(200, {"results": kinds})


def label_create(portal: Portal, call: Call) -> Answer:
    """Create a label, in both directions; the answer shows both."""
    pair, wanted = _pair(portal, call), call.json(LabelInput)
    default_link(portal, *pair)
    taken = {one.label for one in portal.link_types.values() if (one.from_type, one.to_type) == pair}
    if not wanted.label or wanted.label in taken:
        raise invalid(f"An association label {wanted.label!r} exists already or is empty")
    back = wanted.inverse_label or wanted.label
    kind = new_kind(portal, *pair, labels=(wanted.label, back), name=wanted.name)
    shown = {one: portal.link_types[one].answer() for one in (kind.type_id, kind.inverse_id)}
    return Answer(200, {"results": list(shown.values())})


def label_update(portal: Portal, call: Call) -> Answer:
    """Change the texts of a label."""
    patch = call.json(LabelPatch)
    kind = _labelled(portal, call, patch.association_type_id)
    kind.label = patch.label
    portal.link_types[kind.inverse_id].label = patch.inverse_label or patch.label
    portal.version += 1
    return Answer(204)


def label_archive(portal: Portal, call: Call) -> Answer:
    """Remove a label, from all records too; what it labelled stays associated."""
    drop_kind(portal, _labelled(portal, call, whole_id(call.parts[4])).type_id)
    return Answer(204)


def _labelled(portal: Portal, call: Call, type_id: int | None) -> LinkType:
    kind = portal.link_types.get(type_id or 0)
    if kind is None or kind.label is None or (kind.from_type, kind.to_type) != _pair(portal, call):
        raise not_found(f"Association label {type_id} does not exist")
    return kind
