"""CRM search: filters over the index, one sort, 200 a page, 10,000 in all."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from hubspot_simulator.calls import Answer, Call
from hubspot_simulator.errors import bad_values, invalid
from hubspot_simulator.portal import Portal
from hubspot_simulator.records import Record, RecordStore
from hubspot_simulator.values import instant_ms, number, whole_id

PAGE_MAX = 200
TOTAL_MAX = 10_000
BODY_MAX = 3_000
GROUPS_MAX = 5
GROUP_FILTERS_MAX = 6
FILTERS_MAX = 18
ID_MAX = 2**62
RANGES = {"LT", "LTE", "GT", "GTE", "BETWEEN"}
LISTS = {"IN", "NOT_IN"}
PRESENCE = {"HAS_PROPERTY", "NOT_HAS_PROPERTY"}
OPERATORS = RANGES | LISTS | PRESENCE | {"EQ", "NEQ", "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"}

Key = int | float | str
Test = Callable[[Record], bool]


class Filter(msgspec.Struct, rename="camel"):
    """One condition."""

    property_name: str
    operator: str
    value: str | int | float | None = None
    high_value: str | int | float | None = None
    values: list[str | int | float] | None = None


class FilterGroup(msgspec.Struct):
    """Conditions that must all hold."""

    filters: list[Filter]


class SearchBody(msgspec.Struct, rename="camel"):
    """The body of a search; groups are alternatives."""

    filter_groups: list[FilterGroup] = []
    filters: list[Filter] = []
    sorts: list[str | dict[str, str]] = []
    query: str | None = None
    limit: int = 10
    after: str | int | None = None
    properties: list[str] = []


def search(portal: Portal, call: Call) -> Answer:
    """A page of what the index holds now; archived records are never in it."""
    store = portal.store(call.parts[1])
    text = call.body.decode(errors="replace")
    if len(text) > BODY_MAX:
        raise invalid(f"The request body must be at most {BODY_MAX} characters long")
    body = call.json(SearchBody)
    start = _checked_page(body)
    groups = [group.filters for group in body.filter_groups] or ([body.filters] if body.filters else [])
    _check_groups(portal, store, groups)
    store.index.advance(portal.now_s())
    hits = _sorted(store, _hits(portal, store, groups, body.query), body.sorts)
    names = portal.shown_names(store, body.properties)
    results = [portal.answer(store, record, names) for record in hits[start : start + body.limit]]
    answer: dict[str, Any] = {"total": len(hits), "results": results}
    end = start + body.limit
    if end < len(hits) and body.limit:
        answer["paging"] = {"next": {"after": str(end)}}
    return Answer(200, answer)


def _checked_page(body: SearchBody) -> int:
    if not 0 <= body.limit <= PAGE_MAX:
        raise invalid(f"The limit must be between 0 and {PAGE_MAX}")
    after = whole_id("0" if body.after in {None, ""} else str(body.after))
    if after is None:
        raise invalid(f"after must be an integer: {body.after}")
    if after + body.limit > TOTAL_MAX:
        raise invalid(f"Search results are limited to {TOTAL_MAX} in total; narrow the filters")
    if len(body.sorts) > 1:
        raise invalid("Only one sort is supported")
    return after


def _check_groups(portal: Portal, store: RecordStore, groups: Sequence[Sequence[Filter]]) -> None:
    if len(groups) > GROUPS_MAX:
        raise invalid(f"At most {GROUPS_MAX} filterGroups are supported")
    if any(len(group) > GROUP_FILTERS_MAX for group in groups):
        raise invalid(f"At most {GROUP_FILTERS_MAX} filters are supported in a filterGroup")
    if sum(len(group) for group in groups) > FILTERS_MAX:
        raise invalid(f"At most {FILTERS_MAX} filters are supported")
    for group in groups:
        for one in group:
            _check_filter(portal, store, one)


def _check_filter(portal: Portal, store: RecordStore, one: Filter) -> None:
    prop = store.kind.properties.get(one.property_name)
    if prop is None:
        message = f'Property "{one.property_name}" does not exist'
        fault = (one.property_name, "PROPERTY_DOESNT_EXIST", message)
        raise bad_values(portal.settings.portal_id, [fault])
    if one.operator not in OPERATORS:
        raise invalid(f"Invalid operator: {one.operator}")
    if one.operator in RANGES and prop.type in {"string", "enumeration", "bool"}:
        raise invalid(f"Operator {one.operator} is not supported for the {prop.type} property {prop.name}")
    if one.operator in LISTS and not one.values:
        raise invalid(f"Operator {one.operator} needs values")
    if one.operator not in LISTS | PRESENCE and one.value is None:
        raise invalid(f"Operator {one.operator} needs a value")
    if one.operator == "BETWEEN" and one.high_value is None:
        raise invalid("Operator BETWEEN needs a highValue")


def _key(store: RecordStore, name: str, text: str) -> Key | None:
    """A text as search compares it: instants in milliseconds, numbers as numbers, strings without case."""
    kind = store.kind.properties[name].type
    if name == "hs_object_id":
        return whole_id(text)
    if kind in {"date", "datetime"}:
        return instant_ms(text)
    if kind == "number":
        return number(text)
    return text.lower()


def _keyed(portal: Portal, store: RecordStore, name: str) -> Callable[[Record], Key | None]:
    """How to take a property's comparable value from a record."""
    if name == "hs_object_id":
        return lambda record: record.id
    if name == store.kind.modified_name:
        return lambda record: record.modified_ms
    if name == store.kind.created_name:
        return lambda record: record.created_ms

    def of(record: Record) -> Key | None:
        text = portal.value(store, record, name)
        return None if not text else _key(store, name, text)

    return of


def _asked(store: RecordStore, name: str, raw: str | float | None) -> Key:
    text = str(raw)
    key = _key(store, name, text)
    if key is None:
        raise invalid(f"{text} is not a valid value for the property {name}")
    return key


def _test(portal: Portal, store: RecordStore, one: Filter) -> Test:
    name, of = one.property_name, _keyed(portal, store, one.property_name)
    if one.operator in PRESENCE:
        wanted = one.operator == "HAS_PROPERTY"
        return lambda record: (of(record) is not None) == wanted
    if one.operator in LISTS:
        # HubSpot compares lists of strings as typed: values that are not in lower case match nothing.
        exact = store.kind.properties[name].type == "string"
        chosen = {str(raw) if exact else _asked(store, name, raw) for raw in one.values or ()}
        inside = one.operator == "IN"
        return lambda record: (of(record) in chosen) == inside
    if one.operator in {"CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"}:
        return _token_test(portal, store, one)
    low = _asked(store, name, one.value)
    if one.operator in {"EQ", "NEQ"}:
        same = one.operator == "EQ"
        return lambda record: (of(record) == low) == same
    return _range_test(
        of, one.operator, low, None if one.operator != "BETWEEN" else _asked(store, name, one.high_value)
    )


def _range_test(of: Callable[[Record], Any], operator: str, low: Any, high: Any) -> Test:
    tests: dict[str, Callable[[Any], bool]] = {
        "LT": lambda key: key < low,
        "LTE": lambda key: key <= low,
        "GT": lambda key: key > low,
        "GTE": lambda key: key >= low,
        "BETWEEN": lambda key: low <= key <= high,
    }
    holds = tests[operator]

    def test(record: Record) -> bool:
        key = of(record)
        return key is not None and holds(key)

    return test


def _token_test(portal: Portal, store: RecordStore, one: Filter) -> Test:
    wanted = str(one.value).lower()
    head, tail = wanted.endswith("*"), wanted.startswith("*")
    core = wanted.strip("*")

    def matches(token: str) -> bool:
        if head and tail:
            return core in token
        if head:
            return token.startswith(core)
        return token.endswith(core) if tail else token == core

    def test(record: Record) -> bool:
        text = (portal.value(store, record, one.property_name) or "").lower()
        found = any(matches(token) for token in (text, *_tokens(text)))
        return found == (one.operator == "CONTAINS_TOKEN")

    return test


def _tokens(text: str) -> list[str]:
    return "".join(one if one.isalnum() else " " for one in text).split()


def _candidates(store: RecordStore, group: Sequence[Filter]) -> Sequence[int]:
    """The smallest set of ids an index offers for a group; everything when none helps."""
    best: Sequence[int] = store.index.everything()
    for one in group:
        found = _indexed(store, one)
        if found is not None and len(found) < len(best):
            best = found
    return best


def _indexed(store: RecordStore, one: Filter) -> Sequence[int] | None:
    name, operator = one.property_name, one.operator
    if name == "hs_object_id" and operator in RANGES | {"EQ"}:
        low = int(_asked(store, name, one.value))
        high = int(_asked(store, name, one.high_value)) if operator == "BETWEEN" else ID_MAX
        if operator in {"LT", "LTE"}:
            return store.index.from_id(0, low)
        return store.index.from_id(low, low if operator == "EQ" else high)
    if name == store.kind.modified_name and operator in {"GT", "GTE", "BETWEEN"}:
        return store.index.modified_from(int(_asked(store, name, one.value)))
    if operator == "EQ" and store.kind.properties[name].type != "number":
        return store.index.equal_to(name, [str(one.value)])
    if operator == "IN" and store.kind.properties[name].type == "string":
        return store.index.equal_to(name, [str(raw) for raw in one.values or ()])
    return None


def _hits(
    portal: Portal, store: RecordStore, groups: Sequence[Sequence[Filter]], query: str | None
) -> list[Record]:
    seen: dict[int, Record] = {}
    words = (query or "").lower().split()
    for group in groups or [()]:
        tests = [_test(portal, store, one) for one in group]
        ids: Iterable[int] = [*_candidates(store, group), *store.index.waiting()]
        for record_id in ids:
            if record_id in seen:
                continue
            record = store.index.view(record_id)
            if record is None or not all(test(record) for test in tests):
                continue
            if words and not _mentions(store, record, words):
                continue
            seen[record_id] = record
    return [seen[record_id] for record_id in sorted(seen)]


def _mentions(store: RecordStore, record: Record, words: Sequence[str]) -> bool:
    text = " ".join(store.value(record, name) or "" for name in store.kind.searchable).lower()
    return all(word in text for word in words)


def _sorted(store: RecordStore, hits: list[Record], sorts: Sequence[str | dict[str, str]]) -> list[Record]:
    if not sorts:
        return hits
    one = sorts[0]
    if isinstance(one, str):
        name, down = one.removeprefix("-"), one.startswith("-")
    else:
        name, down = one.get("propertyName", ""), one.get("direction", "ASCENDING").upper().startswith("DESC")
    if name not in store.kind.properties:
        raise invalid(f'Property "{name}" does not exist')
    keyed = [(_sort_key(store, record, name), record) for record in hits]
    there = sorted((pair for pair in keyed if pair[0] is not None), key=_first, reverse=down)
    return [record for _, record in there] + [record for key, record in keyed if key is None]


def _sort_key(store: RecordStore, record: Record, name: str) -> Key | None:
    if name == "hs_object_id":
        return record.id
    if name == store.kind.modified_name:
        return record.modified_ms
    text = store.value(record, name)
    return None if not text else _key(store, name, text)


def _first(pair: tuple[Any, Record]) -> Any:
    return pair[0]
