"""The back door: what tests and demos do to the portal that HubSpot's API has no word for."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from hubspot_simulator.access import known_scopes
from hubspot_simulator.calls import Answer
from hubspot_simulator.errors import ApiError, invalid, not_found
from hubspot_simulator.faults import Fault
from hubspot_simulator.links import linked
from hubspot_simulator.merging import erase, merge
from hubspot_simulator.populate import populate_contacts, populate_mock_exams
from hubspot_simulator.populate_bookings import populate_bookings
from hubspot_simulator.portal import Portal
from hubspot_simulator.records import Record, RecordStore, Source
from hubspot_simulator.rules import Rule
from hubspot_simulator.settings import PRESETS
from hubspot_simulator.values import Raw, as_text, iso, whole_id
from hubspot_simulator.webhooks import Subscription

if TYPE_CHECKING:
    from hubspot_simulator.app import Simulator

Model = TypeVar("Model")
# Fields of the settings that do something once instead of being kept.
_ACTIONS = {"advance_s", "migrating_s", "used_today"}


class Fill(msgspec.Struct, forbid_unknown_fields=True):
    """How much to fill in; `same_time` gives all contacts one time of modification.

    Bookings need contacts and mock exams, of this call or of an earlier one.
    """

    contacts: int = 0
    mock_exams: int = 0
    bookings: int = 0
    seed: int = 1
    same_time: bool = False


class Edit(msgspec.Struct, forbid_unknown_fields=True):
    """A person's edit.

    Without an id it makes a record; `archived` archives or restores one, `merge` names the record to merge
    into this one, `erase` deletes it for privacy.
    """

    object_type: str
    id: str | int | None = None
    properties: dict[str, Raw] = {}
    user: str | int = "12345"
    expect: dict[str, Raw] | None = None
    archived: bool | None = None
    merge: str | int | None = None
    erase: bool = False


class Changes(msgspec.Struct, forbid_unknown_fields=True):
    """Settings that may change while the portal runs.

    `advance_s` moves its clock on, `migrating_s` is how long the account moves from now on, `used_today` how
    many calls of the day are gone.
    """

    limits: str | msgspec.UnsetType = msgspec.UNSET
    limit_calls: int | msgspec.UnsetType | None = msgspec.UNSET
    limit_window_s: float | msgspec.UnsetType | None = msgspec.UNSET
    limit_daily: int | msgspec.UnsetType | None = msgspec.UNSET
    limit_search_per_s: int | msgspec.UnsetType | None = msgspec.UNSET
    latency_ms: float | msgspec.UnsetType = msgspec.UNSET
    search_lag_s: float | msgspec.UnsetType = msgspec.UNSET
    history_lag_ms: float | msgspec.UnsetType = msgspec.UNSET
    history_limit: int | msgspec.UnsetType = msgspec.UNSET
    stamp_skew_ms: int | msgspec.UnsetType = msgspec.UNSET
    same_value_entry: bool | msgspec.UnsetType = msgspec.UNSET
    cleared_reads_null: bool | msgspec.UnsetType = msgspec.UNSET
    merge_fills: bool | msgspec.UnsetType = msgspec.UNSET
    portal_id: int | msgspec.UnsetType = msgspec.UNSET
    token: str | msgspec.UnsetType | None = msgspec.UNSET
    revoked: bool | msgspec.UnsetType = msgspec.UNSET
    locked: bool | msgspec.UnsetType = msgspec.UNSET
    missing_scopes: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    migrating_s: float | msgspec.UnsetType = msgspec.UNSET
    used_today: int | msgspec.UnsetType = msgspec.UNSET
    advance_s: float | msgspec.UnsetType = msgspec.UNSET


def _json(body: bytes, model: type[Model]) -> Model:
    try:
        return msgspec.json.decode(body or b"{}", type=model)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise invalid(f"Back door: {error}") from None


def answer(simulator: "Simulator", method: str, path: tuple[str, ...], body: bytes) -> Answer:
    """Answer one call at the back door; ApiError 404 for an address it has not got."""
    match (method, *path):
        case ("GET", "records", kind, text):
            return _record(simulator.portal, kind, text)
        case (_, name) if (method, name) in _ADDRESSES:
            return _ADDRESSES[method, name](simulator, body)
        case _:
            raise not_found("The back door has no such address.")


def _stats(simulator: "Simulator", body: bytes) -> Answer:  # noqa: ARG001 - one shape for all addresses.
    portal = simulator.portal
    return Answer(200, portal.stats.answer(peaks=portal.limiter.peaks()))


def _reset(simulator: "Simulator", body: bytes) -> Answer:  # noqa: ARG001 - one shape for all addresses.
    simulator.portal.reset()
    simulator.faults.clear()
    simulator.webhooks.subscribe(None)
    return Answer(200, {"reset": True})


def _populate(simulator: "Simulator", body: bytes) -> Answer:
    wanted, portal = _json(body, Fill), simulator.portal
    for name in ("contacts", "mock_exams", "bookings"):
        if getattr(wanted, name) and portal.store(name).ids:
            raise ApiError(
                409, f"There are {name.replace('_', ' ')} already; reset first.", category="CONFLICT"
            )
    portal.version += 1
    contacts = populate_contacts(portal, wanted.contacts, seed=wanted.seed, same_time=wanted.same_time)
    exams = populate_mock_exams(portal, wanted.mock_exams, seed=wanted.seed)
    bookings = populate_bookings(portal, wanted.bookings, seed=wanted.seed)
    return Answer(200, {"contacts": contacts, "mock_exams": exams, "bookings": bookings})


def _edit(simulator: "Simulator", body: bytes) -> Answer:
    wanted, portal = _json(body, Edit), simulator.portal
    store = portal.store(wanted.object_type)
    user = str(wanted.user)
    source, at_ms = Source("CRM_UI", f"userId:{user}", user), portal.now_ms()
    if wanted.id is None:
        values = portal.checked(store, None, wanted.properties, typed=False)
        record = portal.create(store, values, at_ms=at_ms, source=source)
        return Answer(201, _shown(portal, store, record))
    record = _found(store, str(wanted.id))
    for name, raw in (wanted.expect or {}).items():
        now = portal.value(store, record, name) or ""
        if now != as_text(raw):
            raise ApiError(409, f"{name} is {now!r}, expected {as_text(raw)!r}", category="CONFLICT")
    if wanted.archived is False and record.archived_ms is not None:
        portal.restore(store, record, at_ms=at_ms, source=source)
    # No type checks here: a test may need a value that only an import or an older definition could leave
    # behind.
    values = portal.checked(store, record, wanted.properties, typed=False)
    portal.update(store, record, values, at_ms=at_ms, source=source)
    if wanted.archived and record.archived_ms is None:
        portal.archive(store, record, at_ms=at_ms, source=source)
    if wanted.merge is not None:
        other = _found(store, str(wanted.merge))
        record = merge(portal, store, record, other, at_ms=at_ms, source=source)
    if wanted.erase:
        shown = _shown(portal, store, record)
        erase(portal, store, record, at_ms=at_ms, source=source)
        return Answer(200, shown)
    return Answer(200, _shown(portal, store, record))


def _faults(simulator: "Simulator", body: bytes) -> Answer:  # noqa: ARG001 - one shape for all addresses.
    return Answer(200, {"waiting": simulator.faults.waiting()})


def _fault(simulator: "Simulator", body: bytes) -> Answer:
    fault = _json(body, Fault)
    try:
        simulator.faults.add(fault)
    except re.error as error:
        raise invalid(f"path is no regular expression: {error}") from None
    return _faults(simulator, body)


def _no_faults(simulator: "Simulator", body: bytes) -> Answer:
    simulator.faults.clear()
    return _faults(simulator, body)


def _rules(simulator: "Simulator", body: bytes) -> Answer:  # noqa: ARG001 - one shape for all addresses.
    return Answer(200, {"rules": simulator.portal.rules.every()})


def _no_rules(simulator: "Simulator", body: bytes) -> Answer:
    simulator.portal.rules.clear()
    return _rules(simulator, body)


def _rule(simulator: "Simulator", body: bytes) -> Answer:
    rule, portal = _json(body, Rule), simulator.portal
    kind = portal.store(rule.object_type).kind
    if rule.property not in kind.properties:
        raise invalid(f"{kind.name} has no property {rule.property}")
    try:
        portal.rules.add(kind.type_id, rule)
    except ValueError as error:
        raise invalid(str(error)) from None
    return _rules(simulator, body)


def _change(simulator: "Simulator", body: bytes) -> Answer:
    wanted, portal = _json(body, Changes), simulator.portal
    if wanted.limits is not msgspec.UNSET and wanted.limits not in PRESETS:
        raise invalid(f"limits is one of {', '.join(PRESETS)}")
    if wanted.missing_scopes is not msgspec.UNSET and set(wanted.missing_scopes) - known_scopes():
        raise invalid(f"missing_scopes are some of {', '.join(sorted(known_scopes()))}")
    changes = {
        name: value
        for name in wanted.__struct_fields__
        if name not in _ACTIONS and (value := getattr(wanted, name)) is not msgspec.UNSET
    }
    if wanted.advance_s is not msgspec.UNSET:
        if wanted.advance_s < 0:
            raise invalid("The clock only moves on")
        changes["clock_offset_s"] = portal.settings.clock_offset_s + wanted.advance_s
    if wanted.migrating_s is not msgspec.UNSET:
        changes["migrating_until_s"] = portal.now_s() + wanted.migrating_s
    if wanted.used_today is not msgspec.UNSET:
        portal.limiter.spend(wanted.used_today, at_s=portal.now_s())
    portal.configure(**changes)
    return _settings(simulator, body)


def _settings(simulator: "Simulator", body: bytes) -> Answer:  # noqa: ARG001 - one shape for all addresses.
    portal = simulator.portal
    shown = msgspec.to_builtins(portal.settings, enc_hook=str)
    shown["now"] = iso(portal.now_ms())
    shown["used_today"] = portal.limiter.used_today
    shown["midnight_in_s"] = portal.limiter.midnight_in_s(portal.now_s())
    return Answer(200, shown)


def _webhooks(simulator: "Simulator", body: bytes) -> Answer:
    wanted = _json(body, Subscription) if body.strip() not in {b"", b"{}", b"null"} else None
    simulator.webhooks.subscribe(wanted)
    return Answer(200, {"url": None if wanted is None else wanted.url})


def _found(store: RecordStore, text: str) -> Record:
    wanted = whole_id(text)
    record = None if wanted is None else store.get(wanted)
    if record is None:
        raise not_found(f"{store.kind.singular} {text} does not exist")
    return record


def _record(portal: Portal, kind: str, text: str) -> Answer:
    store = portal.store(kind)
    return Answer(200, _shown(portal, store, _found(store, text)))


def _shown(portal: Portal, store: RecordStore, record: Record) -> dict[str, Any]:
    """A record with everything the portal knows of it; histories newest first."""
    properties = {
        name: value
        for name in store.kind.properties
        if (value := portal.value(store, record, name)) is not None
    }
    history: dict[str, Any] = {}
    for name in store.columns:
        entries = store.entries(record, name)
        if entries:
            history[name] = [
                {
                    "value": one.value,
                    "timestamp": iso(one.at_ms),
                    "sourceType": one.source.kind,
                    "sourceId": one.source.source_id,
                    "user": one.source.user,
                }
                for one in reversed(entries)
            ]
    associations = {
        portal.stores[to_type].kind.name: [
            {"id": str(other), "types": [portal.link_types[kind].answer() for kind in kinds]}
            for other, kinds in found
        ]
        for to_type in record.links or {}
        if (found := linked(portal, record, to_type))
    }
    return {
        "id": str(record.id),
        "properties": properties,
        "history": history,
        "associations": associations,
        "createdAt": iso(record.created_ms),
        "updatedAt": iso(record.modified_ms),
        "archived": record.archived_ms is not None,
    }


_ADDRESSES: dict[tuple[str, str], Callable[["Simulator", bytes], Answer]] = {
    ("GET", "stats"): _stats,
    ("POST", "reset"): _reset,
    ("POST", "populate"): _populate,
    ("GET", "faults"): _faults,
    ("DELETE", "faults"): _no_faults,
    ("GET", "rules"): _rules,
    ("DELETE", "rules"): _no_rules,
    ("GET", "settings"): _settings,
    ("POST", "edits"): _edit,
    ("POST", "faults"): _fault,
    ("POST", "rules"): _rule,
    ("POST", "settings"): _change,
    ("POST", "webhooks"): _webhooks,
}
