"""Merging records and deleting contacts for good."""

from typing import Any

import msgspec

from hubspot_simulator.calls import Answer, Call
from hubspot_simulator.definitions import CONTACTS
from hubspot_simulator.errors import invalid, not_found
from hubspot_simulator.merging import erase, merge
from hubspot_simulator.portal import Portal
from hubspot_simulator.records import Record, RecordStore
from hubspot_simulator.values import folded, whole_id


class MergeBody(msgspec.Struct, rename="camel"):
    """The record that wins and the one merged into it."""

    primary_object_id: str | int
    object_id_to_merge: str | int


class EraseBody(msgspec.Struct, rename="camel"):
    """A contact by its record id, or by e-mail with `idProperty`."""

    object_id: str | int
    id_property: str | None = None


def _live(store: RecordStore, raw: Any) -> Record:
    wanted = whole_id(str(raw))
    record = None if wanted is None else store.live(wanted)
    if record is None:
        raise not_found(f"{store.kind.singular} {raw} does not exist")
    return record


def merge_records(portal: Portal, call: Call) -> Answer:
    """Merge two records of one type; the answer is the new one."""
    store = portal.store(call.parts[1])
    body = call.json(MergeBody)
    primary, other = _live(store, body.primary_object_id), _live(store, body.object_id_to_merge)
    record = merge(portal, store, primary, other, at_ms=call.at_ms, source=call.source)
    names = portal.shown_names(store, ["hs_merged_object_ids", *store.kind.searchable])
    return Answer(200, portal.answer(store, record, names))


def gdpr_delete(portal: Portal, call: Call) -> Answer:
    """Delete a contact for good; an unknown e-mail goes on the blocklist."""
    store = portal.store(call.parts[1])
    if store.kind.type_id != CONTACTS:
        raise not_found("resource not found")
    body = call.json(EraseBody)
    text = str(body.object_id)
    if body.id_property not in {None, "hs_object_id", "email"}:
        raise invalid(f"idProperty must be email: {body.id_property}")
    if body.id_property == "email":
        record = store.by_unique("email", text)
        if record is None:
            portal.blocked_emails.add(folded(text))
            portal.version += 1
            return Answer(204)
    else:
        wanted = whole_id(text)
        record = None if wanted is None else store.get(wanted)
    if record is None:
        raise not_found(f"Contact {text} does not exist")
    erase(portal, store, record, at_ms=call.at_ms, source=call.source)
    return Answer(204)
