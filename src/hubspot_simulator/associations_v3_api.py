"""Associations v3: batches and kinds by name."""

from typing import Any

import msgspec

from hubspot_simulator.associations_api import READ_MAX, WRITE_MAX, find_end
from hubspot_simulator.calls import Answer, Call, ObjectRef, batch_answer, within
from hubspot_simulator.definitions import LinkType
from hubspot_simulator.errors import ApiError, invalid
from hubspot_simulator.links import End, default_link, link, linked, unlink
from hubspot_simulator.portal import Portal


class PairInput(msgspec.Struct, rename={"from_": "from"}):
    """Two records and the name of the association between them."""

    from_: ObjectRef
    to: ObjectRef
    type: str


class PairBatch(msgspec.Struct):
    """The body of batch/create and batch/archive."""

    inputs: list[PairInput]


class FromBatch(msgspec.Struct):
    """The body of batch/read."""

    inputs: list[ObjectRef]


def _kind(portal: Portal, call: Call, name: str) -> LinkType:
    """The association of that name, or id, between the two types of the path; ApiError 400 for another."""
    pair = (portal.store(call.parts[1]).kind.type_id, portal.store(call.parts[2]).kind.type_id)
    default_link(portal, *pair)
    for one in portal.link_types.values():
        if (one.from_type, one.to_type) == pair and name.lower() in {one.name.lower(), str(one.type_id)}:
            return one
    raise invalid(f"Invalid association type: {name}")


def _pairs(portal: Portal, call: Call) -> list[tuple[End, End, LinkType, PairInput]]:
    inputs = call.json(PairBatch).inputs
    within(len(inputs), WRITE_MAX)
    store, to_store = portal.store(call.parts[1]), portal.store(call.parts[2])
    return [
        (
            find_end(store, one.from_.id),
            find_end(to_store, one.to.id),
            _kind(portal, call, one.type),
            one,
        )
        for one in inputs
    ]


def pairs_create(portal: Portal, call: Call) -> Answer:
    """Associate many pairs; one that is wrong refuses the batch."""
    results = []
    for a, b, kind, one in _pairs(portal, call):
        link(portal, a, b, [kind.type_id], at_ms=call.at_ms, source=call.source)
        results.append({"from": {"id": str(a[1].id)}, "to": {"id": str(b[1].id)}, "type": one.type})
    return batch_answer(call, results, [], status=201)


def pairs_archive(portal: Portal, call: Call) -> Answer:
    """Take associations away; the unlabelled one takes all of the pair with it."""
    for a, b, kind, _ in _pairs(portal, call):
        kinds = None if kind.label is None else [kind.type_id]
        unlink(portal, a, b, kinds, at_ms=call.at_ms, source=call.source)
    return Answer(204)


def pairs_read(portal: Portal, call: Call) -> Answer:
    """The associations of many records; those without any are left out, unknown ones are errors of a 207."""
    inputs = call.json(FromBatch).inputs
    within(len(inputs), READ_MAX)
    store, to_store = portal.store(call.parts[1]), portal.store(call.parts[2])
    results: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for one in inputs:
        try:
            _, record = find_end(store, one.id)
        except ApiError as error:
            errors.append(error.in_batch(None))
            continue
        to = [
            {"id": str(other), "type": portal.link_types[kind].name}
            for other, kinds in linked(portal, record, to_store.kind.type_id)
            for kind in kinds
        ]
        if to:
            results.append({"from": {"id": str(record.id)}, "to": to})
    return batch_answer(call, results, errors)


def kinds_list(portal: Portal, call: Call) -> Answer:
    """The ids and names of the associations from one type to another."""
    pair = (portal.store(call.parts[1]).kind.type_id, portal.store(call.parts[2]).kind.type_id)
    default_link(portal, *pair)
    found = [one for one in portal.link_types.values() if (one.from_type, one.to_type) == pair]
    return Answer(200, {"results": [{"id": str(one.type_id), "name": one.name} for one in found]})
