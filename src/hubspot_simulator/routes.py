"""Which handler answers a path. The v3/v4 paths and the dated paths are two spellings of the same calls."""

import re
from collections.abc import Callable

from hubspot_simulator import account_api as account
from hubspot_simulator import associations_api as links
from hubspot_simulator import associations_v3_api as pairs
from hubspot_simulator import batch_api as batch
from hubspot_simulator import definitions_api as defs
from hubspot_simulator import merge_api as merging
from hubspot_simulator import objects_api as objects
from hubspot_simulator import schemas_api as schemas
from hubspot_simulator.calls import Answer, Call
from hubspot_simulator.portal import Portal
from hubspot_simulator.search import search

Handler = Callable[[Portal, Call], Answer]

_DATED = r"20\d\d-(?:03|09)"
_PREFIXES = (
    ("objects", re.compile(rf"/crm/(?:v[34]/objects|objects/{_DATED})(/.+)")),
    ("properties", re.compile(rf"/crm/(?:v3/properties|properties/{_DATED})(/.+)")),
    ("associations", re.compile(rf"/crm/(?:v4/associations|associations/{_DATED})(/.+)")),
    ("pairs", re.compile(r"/crm/v3/associations(/.+)")),
    ("schemas", re.compile(rf"/(?:crm-object-schemas/(?:v3|{_DATED})|crm/v3)/schemas(/.+)?")),
    ("rules", re.compile(rf"/crm/(?:v3/property-validations|property-validations/{_DATED})(/.+)")),
    ("account", re.compile(rf"/account-info/(?:v3|{_DATED})(/.+)")),
)
_SINGLES: dict[tuple[str, int], tuple[str, Handler]] = {
    ("GET", 0): ("list", objects.list_page),
    ("POST", 0): ("create", objects.create_one),
    ("GET", 1): ("read", objects.read_one),
    ("PATCH", 1): ("update", objects.update_one),
    ("DELETE", 1): ("archive", objects.archive_one),
}
# Method, number of parts after `associations`, whether the first of them is `default`.
_PAIRS: dict[tuple[str, int, bool], Handler] = {
    ("GET", 1, False): links.links_list,
    ("PUT", 3, True): links.link_default,
    ("PUT", 2, False): links.link_labelled,
    ("DELETE", 2, False): links.link_archive,
}
_ASSOCIATIONS: dict[tuple[str, ...], Handler] = {
    ("GET", "labels"): links.labels_list,
    ("POST", "labels"): links.label_create,
    ("PUT", "labels"): links.label_update,
    ("DELETE", "labels", "*"): links.label_archive,
    ("POST", "batch", "read"): links.batch_links_read,
    ("POST", "batch", "create"): links.batch_links_create,
    ("POST", "batch", "archive"): links.batch_links_archive,
    ("POST", "batch", "associate", "default"): links.batch_links_default,
    ("POST", "batch", "labels", "archive"): links.batch_labels_archive,
}
_V3_PAIRS: dict[tuple[str, ...], Handler] = {
    ("GET", "types"): pairs.kinds_list,
    ("POST", "batch", "read"): pairs.pairs_read,
    ("POST", "batch", "create"): pairs.pairs_create,
    ("POST", "batch", "archive"): pairs.pairs_archive,
}
_PROPERTIES: dict[tuple[str, ...], Handler] = {
    ("GET",): defs.properties_list,
    ("POST",): defs.property_create,
    ("POST", "batch", "create"): defs.properties_batch_create,
    ("POST", "batch", "read"): defs.properties_batch_read,
    ("POST", "batch", "archive"): defs.properties_batch_archive,
    ("GET", "groups"): defs.groups_list,
    ("POST", "groups"): defs.group_create,
    ("GET", "groups", "*"): defs.group_read,
    ("PATCH", "groups", "*"): defs.group_update,
    ("DELETE", "groups", "*"): defs.group_archive,
    ("GET", "*"): defs.property_read,
    ("PATCH", "*"): defs.property_update,
    ("DELETE", "*"): defs.property_archive,
}
_SCHEMAS: dict[tuple[str, ...], Handler] = {
    ("GET",): schemas.schemas_list,
    ("POST",): schemas.schema_create,
    ("POST", "batch", "read"): schemas.schemas_batch_read,
    ("GET", "*"): schemas.schema_read,
    ("PATCH", "*"): schemas.schema_update,
    ("DELETE", "*"): schemas.schema_archive,
    ("POST", "*", "associations"): schemas.schema_association_create,
    ("DELETE", "*", "associations", "*"): schemas.schema_association_archive,
}
_RULES: dict[tuple[str, ...], Handler] = {("GET",): defs.rules_list, ("GET", "*"): defs.rules_of_property}
_ACCOUNT: dict[tuple[str, ...], Handler] = {
    ("GET", "details"): account.account_details,
    ("GET", "api-usage", "daily", "private-apps"): account.account_usage,
}
_COUNTED_AS = {"rules": "properties", "pairs": "associations"}
# Family: how many parts stand before the words of the table.
_TABLES: dict[str, tuple[int, dict[tuple[str, ...], Handler]]] = {
    "properties": (2, _PROPERTIES),
    "associations": (3, _ASSOCIATIONS),
    "pairs": (3, _V3_PAIRS),
    "schemas": (1, _SCHEMAS),
    "rules": (2, _RULES),
    "account": (1, _ACCOUNT),
}
_ACTIONS: dict[str, tuple[str, Handler]] = {
    "search": ("search", search),
    "merge": ("merge", merging.merge_records),
    "gdpr-delete": ("gdpr_delete", merging.gdpr_delete),
}
_BATCHES: dict[str, tuple[str, Handler]] = {
    "read": ("batch_read", batch.batch_read),
    "create": ("batch_create", batch.batch_create),
    "update": ("batch_update", batch.batch_update),
    "upsert": ("batch_upsert", batch.batch_upsert),
    "archive": ("batch_archive", batch.batch_archive),
}


def split(path: str) -> tuple[str, ...]:
    """The path without prefix and version, `("objects", "contacts", "search")`; empty when unknown."""
    for family, pattern in _PREFIXES:
        match = pattern.fullmatch(path.rstrip("/"))
        if match is not None:
            return (family, *(match[1] or "").strip("/").split("/")) if match[1] else (family,)
    return ()


def route(method: str, parts: tuple[str, ...]) -> tuple[str, Handler] | None:
    """The kind of call, as the back door counts it, and its handler; None for what the portal has not got."""
    family = parts[0]
    if family == "objects":
        return _objects(method, parts)
    skip, table = _TABLES[family]
    found = _named(method, parts[skip:], table) if len(parts) >= skip else None
    return None if found is None else (_COUNTED_AS.get(family, family), found)


def _objects(method: str, parts: tuple[str, ...]) -> tuple[str, Handler] | None:
    rest = parts[2:]
    if rest[1:2] == ("associations",):
        found = _PAIRS.get((method, len(rest) - 2, rest[2:3] == ("default",)))
        return None if found is None else ("associations", found)
    if rest[:1] == ("batch",):
        return _BATCHES.get(rest[1]) if method == "POST" and len(rest) == 2 else None
    if len(rest) == 1 and method == "POST":
        return _ACTIONS.get(rest[0])
    return _SINGLES.get((method, len(rest)))


def _named(method: str, parts: tuple[str, ...], table: dict[tuple[str, ...], Handler]) -> Handler | None:
    """The handler for exactly these words, else the one with names in some of their places."""
    found = table.get((method, *parts))
    if found is not None:
        return found
    # Names stand in the first and last place only.
    first, last = ("*", *parts[1:]), (*parts[:-1], "*")
    for one in (first, last, (*first[:-1], "*")) if parts else ():
        if (method, *one) in table:
            return table[method, *one]
    return None


def exempt(parts: tuple[str, ...]) -> bool:
    """Batch calls on associations are free of the rolling window, by a mark in HubSpot's specifications."""
    return parts[:1] in {("associations",), ("pairs",)} and len(parts) > 3 and parts[3] == "batch"
