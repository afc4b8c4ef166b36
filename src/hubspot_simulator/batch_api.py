"""Batches of records: read, create, update, upsert, archive."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hubspot_simulator.calls import (
    Answer,
    BatchCreate,
    BatchIds,
    BatchRead,
    BatchUpdate,
    Call,
    CreateInput,
    UpdateInput,
    batch_answer,
    within,
)
from hubspot_simulator.errors import ApiError, invalid
from hubspot_simulator.objects_api import HISTORY_MAX, archived, created, find, resolved_links
from hubspot_simulator.portal import Portal
from hubspot_simulator.records import Record, RecordStore

BATCH_MAX = 100
Input = TypeVar("Input", CreateInput, UpdateInput)


def _missing(store: RecordStore, ids: list[str]) -> dict[str, Any]:
    return {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "message": f"Could not get some {store.kind.shout} objects, they may be deleted or not exist. "
        "Check that ids are valid.",
        "context": {"ids": ids},
        "errors": [],
        "links": {},
    }


def batch_read(portal: Portal, call: Call) -> Answer:
    """Records by id or by a unique property; 207 names the ids that were not found."""
    store = portal.store(call.parts[1])
    asked = call.json(BatchRead)
    history = asked.properties_with_history
    within(len(asked.inputs), HISTORY_MAX if history else BATCH_MAX)
    gone = call.flag("archived")
    names = portal.shown_names(store, [*asked.properties, *history])
    found: dict[int, Record] = {}
    missing: list[str] = []
    for text in dict.fromkeys(str(one.id) for one in asked.inputs):
        record = archived(store, text) if gone else find(store, text, asked.id_property)
        if record is None:
            missing.append(text)
        else:
            # Two ids of one merged record are one result.
            found[record.id] = record
    results = [portal.answer(store, record, names, history) for record in found.values()]
    return batch_answer(call, results, [_missing(store, missing)] if missing else [])


def _each(
    inputs: Sequence[Input], *, partial: bool, act: Callable[[Input], dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Apply each input.

    With unique trace ids a refusal is one entry of `errors`; without, it is the whole answer.
    """
    results: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for one in inputs:
        try:
            results.append(act(one))
        except ApiError as error:
            if not partial:
                raise
            errors.append(error.in_batch(one.object_write_trace_id))
    return results, errors


def _traced(inputs: Sequence[CreateInput] | Sequence[UpdateInput]) -> bool:
    traces = {one.object_write_trace_id for one in inputs}
    return None not in traces and len(traces) == len(inputs)


def batch_create(portal: Portal, call: Call) -> Answer:
    """Create records with their associations.

    One refusal refuses all, unless every input has its own trace id.
    """
    store = portal.store(call.parts[1])
    inputs = call.json(BatchCreate).inputs
    within(len(inputs), BATCH_MAX)
    partial = _traced(inputs)
    if not partial:
        _rehearse_create(portal, store, inputs)

    def act(one: CreateInput) -> dict[str, Any]:
        record = created(portal, store, one, call)
        shown = portal.answer(store, record, portal.shown_names(store, list(one.properties)))
        if one.object_write_trace_id is not None:
            shown["objectWriteTraceId"] = one.object_write_trace_id
        return shown

    results, errors = _each(inputs, partial=partial, act=act)
    return batch_answer(call, results, errors, status=201)


def _rehearse_create(portal: Portal, store: RecordStore, inputs: Sequence[CreateInput]) -> None:
    """Refuse the whole batch before its first write: for bad values, taken values, values given twice."""
    seen: dict[tuple[str, str], int] = {}
    for one in inputs:
        values = portal.checked(store, None, one.properties)
        for name in store.unique:
            value = values.get(name, "").strip().lower()
            if value and seen.setdefault((name, value), id(one)) != id(one):
                raise invalid(f"Duplicate {name} in batch input: {value}. Values must be unique.")
        portal.refuse_create(store, values)
        resolved_links(portal, store, one.associations or ())


def batch_update(portal: Portal, call: Call) -> Answer:
    """Update records by id or unique property; a contact's e-mail as id is ignored in silence."""
    store = portal.store(call.parts[1])
    inputs = call.json(BatchUpdate).inputs
    within(len(inputs), BATCH_MAX)
    _refuse_doubles(inputs)
    partial = _traced(inputs)
    found: list[tuple[UpdateInput, Record]] = []
    missing: list[str] = []
    for one in inputs:
        text = str(one.id)
        by_email = not store.kind.custom and (one.id_property == "email" or "@" in text)
        record = None if by_email else find(store, text, one.id_property)
        if record is not None:
            found.append((one, record))
        elif not by_email:
            missing.append(text)
    if not partial:
        for one, record in found:
            portal.refuse_update(store, record, portal.checked(store, record, one.properties))
    by_input = {id(one): record for one, record in found}

    def act(one: UpdateInput) -> dict[str, Any]:
        return _written(portal, store, one, by_input[id(one)], call)

    results, errors = _each([one for one, _ in found], partial=partial, act=act)
    return batch_answer(call, results, [*errors, *([_missing(store, missing)] if missing else [])])


def _written(
    portal: Portal, store: RecordStore, one: UpdateInput, record: Record, call: Call
) -> dict[str, Any]:
    values = portal.checked(store, record, one.properties)
    portal.update(store, record, values, at_ms=call.at_ms, source=call.source)
    shown = portal.answer(store, record, portal.shown_names(store, list(one.properties)))
    if one.object_write_trace_id is not None:
        shown["objectWriteTraceId"] = one.object_write_trace_id
    return shown


def _refuse_doubles(inputs: Sequence[UpdateInput]) -> None:
    ids = [str(one.id).lower() for one in inputs]
    doubles = sorted({one for one in ids if ids.count(one) > 1}) if len(set(ids)) < len(ids) else []
    if doubles:
        raise invalid(f"Duplicate IDs found in batch input: [{', '.join(doubles)}]. IDs must be unique")


def _id_property(portal: Portal, store: RecordStore, inputs: Sequence[UpdateInput]) -> str:
    names = {one.id_property for one in inputs}
    if len(names) != 1 or None in names:
        raise invalid("Every input of an upsert needs the same idProperty")
    name = str(names.pop())
    if name not in store.unique:
        raise invalid(
            f"Unable to perform update/upsert by non-unique {store.kind.type_id} property {name} "
            f"in portal ID {portal.settings.portal_id}"
        )
    return name


def batch_upsert(portal: Portal, call: Call) -> Answer:
    """Create or update by a unique property.

    By e-mail one bad input fails the whole batch, trace ids or not.
    """
    store = portal.store(call.parts[1])
    inputs = call.json(BatchUpdate).inputs
    within(len(inputs), BATCH_MAX)
    if not inputs:
        return batch_answer(call, [], [])
    name = _id_property(portal, store, inputs)
    _refuse_doubles(inputs)
    partial = _traced(inputs) and not (name == "email" and not store.kind.custom)
    if not partial:
        for one in inputs:
            _rehearse_upsert(portal, store, one, name)

    def act(one: UpdateInput) -> dict[str, Any]:
        record = store.by_unique(name, str(one.id))
        if record is not None:
            return {**_written(portal, store, one, record, call), "new": False}
        wanted = CreateInput({name: str(one.id), **one.properties}, None, one.object_write_trace_id)
        record = created(portal, store, wanted, call)
        shown = portal.answer(store, record, portal.shown_names(store, list(wanted.properties)))
        if one.object_write_trace_id is not None:
            shown["objectWriteTraceId"] = one.object_write_trace_id
        return {**shown, "new": True}

    results, errors = _each(inputs, partial=partial, act=act)
    return batch_answer(call, results, errors)


def _rehearse_upsert(portal: Portal, store: RecordStore, one: UpdateInput, name: str) -> None:
    record = store.by_unique(name, str(one.id))
    try:
        if record is not None:
            portal.refuse_update(store, record, portal.checked(store, record, one.properties))
        else:
            portal.refuse_create(store, portal.checked(store, None, {name: str(one.id), **one.properties}))
    except ApiError as error:
        # A value that another record holds fails the whole upsert with 409, whichever property it is.
        codes = {fault.get("code") for fault in error.fields.get("errors", [])}
        if "CONFLICTING_UNIQUE_VALUE" in codes:
            raise ApiError(409, error.message, category="CONFLICT", **error.fields) from None
        raise


def batch_archive(portal: Portal, call: Call) -> Answer:
    """Archive records by id; ids that do not exist are passed over."""
    store = portal.store(call.parts[1])
    inputs = call.json(BatchIds).inputs
    within(len(inputs), BATCH_MAX)
    for one in inputs:
        record = find(store, str(one.id), None)
        if record is not None:
            portal.archive(store, record, at_ms=call.at_ms, source=call.source)
    return Answer(204)
