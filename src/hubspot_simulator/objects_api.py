"""Single records: list, read, create, update, archive."""

from collections.abc import Iterable
from typing import Any

from hubspot_simulator.calls import Answer, Call, CreateInput, InlineLink, UpdateBody
from hubspot_simulator.errors import invalid, not_found
from hubspot_simulator.links import link, linked
from hubspot_simulator.portal import Portal
from hubspot_simulator.records import Record, RecordStore
from hubspot_simulator.values import whole_id

LIST_MAX = 100
HISTORY_MAX = 50
DEFAULT_PAGE = 10


def list_page(portal: Portal, call: Call) -> Answer:
    """A page in the order of ids; it starts at the id `after`, so any range can be walked."""
    store = portal.store(call.parts[1])
    history = call.names("propertiesWithHistory")
    limit = call.whole("limit", DEFAULT_PAGE)
    most = HISTORY_MAX if history else LIST_MAX
    if not 1 <= limit <= most:
        raise invalid(f"limit must be between 1 and {most}")
    names = portal.shown_names(store, [*call.names("properties"), *history])
    kinds = [portal.store(name).kind.type_id for name in call.names("associations")]
    results: list[dict[str, Any]] = []
    for record in store.walk(call.whole("after", 0), archived=call.flag("archived")):
        if len(results) == limit:
            return Answer(200, {"results": results, "paging": {"next": _next(call, record.id, limit)}})
        results.append(_with_links(portal, record, portal.answer(store, record, names, history), kinds))
    return Answer(200, {"results": results})


def _next(call: Call, after: int, limit: int) -> dict[str, str]:
    kept = "".join(
        f"&{name}={value}"
        for name, values in call.query().items()
        if name not in {"after", "limit"}
        for value in values
    )
    link = f"https://api.hubapi.com/crm/v3/objects/{call.parts[1]}?limit={limit}&after={after}{kept}"
    return {"after": str(after), "link": link}


def find(store: RecordStore, text: str, id_property: str | None) -> Record | None:
    """The live record with this id or this unique value; ApiError 400 when the property is not unique."""
    if id_property is None or id_property == "hs_object_id":
        wanted = whole_id(text)
        return None if wanted is None else store.live(wanted)
    if id_property not in store.unique:
        raise invalid(f"{id_property} is not a unique property of {store.kind.name}")
    return store.by_unique(id_property, text)


def archived(store: RecordStore, text: str) -> Record | None:
    """The archived record with this id."""
    wanted = whole_id(text)
    record = None if wanted is None else store.get(wanted)
    return None if record is None or record.archived_ms is None else record


def read_one(portal: Portal, call: Call) -> Answer:
    """One record by id or by `idProperty`; with `archived=true` an archived one."""
    store = portal.store(call.parts[1])
    text = call.parts[2]
    gone = call.flag("archived")
    record = archived(store, text) if gone else find(store, text, call.text("idProperty"))
    if record is None:
        raise not_found()
    history = call.names("propertiesWithHistory")
    names = portal.shown_names(store, [*call.names("properties"), *history])
    kinds = [portal.store(name).kind.type_id for name in call.names("associations")]
    return Answer(200, _with_links(portal, record, portal.answer(store, record, names, history), kinds))


def _with_links(portal: Portal, record: Record, shown: dict[str, Any], kinds: list[str]) -> dict[str, Any]:
    links: dict[str, Any] = {}
    for to_type in kinds:
        kind = portal.stores[to_type].kind
        results = [
            {"id": str(other), "type": portal.link_types[one].name}
            for other, types in linked(portal, record, to_type)
            for one in types
        ]
        if results:
            links[kind.full_name(portal.settings.portal_id)] = {"results": results}
    if links:
        shown["associations"] = links
    return shown


def resolved_links(
    portal: Portal, store: RecordStore, asked: Iterable[InlineLink]
) -> list[tuple[RecordStore, Record, list[int]]]:
    """The other ends of inline associations; ApiError 400 when one does not exist."""
    found = []
    for one in asked:
        kinds = [spec.association_type_id for spec in one.types]
        types = {portal.link_types[kind].to_type for kind in kinds if kind in portal.link_types}
        known = all(
            kind in portal.link_types and portal.link_types[kind].from_type == store.kind.type_id
            for kind in kinds
        )
        if len(types) != 1 or not known:
            raise invalid(
                f"One or more associations are not valid: no association type {kinds} from {store.kind.name}"
            )
        other_store = portal.stores[types.pop()]
        wanted = whole_id(str(one.to.id))
        other = None if wanted is None else other_store.live(wanted)
        if other is None:
            raise invalid(
                f"One or more associations are not valid: {other_store.kind.name} {one.to.id} does not exist"
            )
        found.append((other_store, other, kinds))
    return found


def create_one(portal: Portal, call: Call) -> Answer:
    """Create a record, with its associations."""
    store = portal.store(call.parts[1])
    wanted = call.json(CreateInput)
    record = created(portal, store, wanted, call)
    return Answer(201, portal.answer(store, record, portal.shown_names(store, list(wanted.properties))))


def created(portal: Portal, store: RecordStore, wanted: CreateInput, call: Call) -> Record:
    """Create one record from an input; ApiError and nothing written when any part of it is refused."""
    values = portal.checked(store, None, wanted.properties)
    links = resolved_links(portal, store, wanted.associations or ())
    record = portal.create(store, values, at_ms=call.at_ms, source=call.source)
    for other_store, other, kinds in links:
        link(portal, (store, record), (other_store, other), kinds, at_ms=call.at_ms, source=call.source)
    return record


def update_one(portal: Portal, call: Call) -> Answer:
    """Write some properties of one record."""
    store = portal.store(call.parts[1])
    wanted = call.json(UpdateBody)
    record = find(store, call.parts[2], call.text("idProperty"))
    if record is None:
        raise not_found()
    values = portal.checked(store, record, wanted.properties)
    portal.update(store, record, values, at_ms=call.at_ms, source=call.source)
    return Answer(200, portal.answer(store, record, portal.shown_names(store, list(wanted.properties))))


def archive_one(portal: Portal, call: Call) -> Answer:
    """Archive a record; 204 also when there is none, as seen at HubSpot."""
    store = portal.store(call.parts[1])
    record = find(store, call.parts[2], None)
    if record is not None:
        portal.archive(store, record, at_ms=call.at_ms, source=call.source)
    return Answer(204)
