"""Associations between records: each is kept at both ends, with the kinds that hold in that direction."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hubspot_simulator.definitions import LinkType
from hubspot_simulator.records import Record, RecordStore, Source

if TYPE_CHECKING:
    from hubspot_simulator.portal import Portal

LINK_TYPE_FROM = 1401

End = tuple[RecordStore, Record]


def default_link(portal: "Portal", from_type: str, to_type: str) -> LinkType:
    """The unlabelled association between two types, made when it is first asked for."""
    for one in portal.link_types.values():
        if (one.from_type, one.to_type, one.label) == (from_type, to_type, None):
            return one
    return new_kind(portal, from_type, to_type, labels=(None, None))


def new_kind(
    portal: "Portal", from_type: str, to_type: str, *, labels: tuple[str | None, str | None], name: str = ""
) -> LinkType:
    """A new kind of association and its inverse; `labels` are those of the two directions."""
    first = max([LINK_TYPE_FROM, *(one + 1 for one in portal.link_types)])
    # Among records of one type an association without two different labels is its own inverse.
    second = first if from_type == to_type and labels[0] == labels[1] else first + 1
    a, b = portal.stores[from_type].kind.name, portal.stores[to_type].kind.name
    back = LinkType(second, to_type, from_type, first, labels[1], name=name or f"{b}_to_{a}")
    portal.link_types[second] = back
    portal.link_types[first] = LinkType(
        first, from_type, to_type, second, labels[0], name=name or f"{a}_to_{b}"
    )
    portal.version += 1
    return portal.link_types[first]


def drop_kind(portal: "Portal", type_id: int) -> None:
    """Take a kind of association and its inverse away, from all records too."""
    kind = portal.link_types.get(type_id)
    if kind is None:
        return
    gone = {kind.type_id, kind.inverse_id}
    for from_type, to_type in {(kind.from_type, kind.to_type), (kind.to_type, kind.from_type)}:
        for record in portal.stores[from_type].records:
            for other_id in list((record.links or {}).get(to_type, {})):
                _remove(record, to_type, other_id, gone)
    for one in gone:
        portal.link_types.pop(one, None)
    portal.version += 1


def link(portal: "Portal", a: End, b: End, kinds: Iterable[int], *, at_ms: int, source: Source) -> None:
    """Associate two records both ways; the unlabelled kind is always among the kinds."""
    default = default_link(portal, a[0].kind.type_id, b[0].kind.type_id)
    wanted = {default.type_id, *kinds}
    portal.version += 1
    new = wanted - set(_kinds(a[1], b[0].kind.type_id, b[1].id))
    _add(a[1], b[0].kind.type_id, b[1].id, wanted)
    _add(b[1], a[0].kind.type_id, a[1].id, {portal.link_types[one].inverse_id for one in wanted})
    _tell(portal, a, b, new, removed=False, at_ms=at_ms, source=source)


def unlink(
    portal: "Portal", a: End, b: End, kinds: Iterable[int] | None = None, *, at_ms: int, source: Source
) -> None:
    """Remove the named kinds of association, or all of them, both ways."""
    there = set(_kinds(a[1], b[0].kind.type_id, b[1].id))
    gone = there if kinds is None else there & set(kinds)
    if not gone:
        return
    portal.version += 1
    _remove(a[1], b[0].kind.type_id, b[1].id, gone)
    _remove(b[1], a[0].kind.type_id, a[1].id, {portal.link_types[one].inverse_id for one in gone})
    _tell(portal, a, b, gone, removed=True, at_ms=at_ms, source=source)


def linked(portal: "Portal", record: Record, to_type: str) -> list[tuple[int, tuple[int, ...]]]:
    """The live records of a type this one is associated with: (id, association kinds), by id."""
    store = portal.stores[to_type]
    found = (record.links or {}).get(to_type, {})
    return sorted((other, kinds) for other, kinds in found.items() if store.live(other) is not None)


def hand_over(portal: "Portal", store: RecordStore, old: Record, new: Record | None) -> None:
    """Give all associations of a removed record to another one, or to nobody, and say nothing of it.

    Those with records that are removed too are gone.
    """
    own_type = store.kind.type_id
    for to_type, others in (old.links or {}).items():
        for other_id, kinds in others.items():
            other = portal.stores[to_type].exact(other_id)
            if other is None:
                continue
            back = {portal.link_types[one].inverse_id for one in kinds}
            _remove(other, own_type, old.id, back)
            if new is not None:
                _add(other, own_type, new.id, back)
                _add(new, to_type, other_id, set(kinds))
    old.links = None


def _tell(
    portal: "Portal", a: End, b: End, kinds: Iterable[int], *, removed: bool, at_ms: int, source: Source
) -> None:
    if portal.listener is None:
        return
    for one in sorted(kinds):
        back = portal.link_types[one].inverse_id
        for (from_store, from_), (to_store, to), kind in ((a, b, one), (b, a, back)):
            names = (from_store.kind.singular, to_store.kind.singular)
            portal.tell(
                from_store,
                from_.id,
                "associationChange",
                at_ms=at_ms,
                source=source,
                associationType="_TO_".join(name.upper().replace(" ", "_") for name in names),
                associationTypeId=kind,
                associationCategory=portal.link_types[kind].category,
                fromObjectId=from_.id,
                toObjectId=to.id,
                fromObjectTypeId=from_store.kind.type_id,
                toObjectTypeId=to_store.kind.type_id,
                associationRemoved=removed,
                isPrimaryAssociation=False,
            )


def _kinds(record: Record, to_type: str, to_id: int) -> tuple[int, ...]:
    return (record.links or {}).get(to_type, {}).get(to_id, ())


def _add(record: Record, to_type: str, to_id: int, kinds: set[int]) -> None:
    if record.links is None:
        record.links = {}
    there = record.links.setdefault(to_type, {})
    there[to_id] = tuple(sorted({*there.get(to_id, ()), *kinds}))


def _remove(record: Record, to_type: str, to_id: int, kinds: set[int]) -> None:
    there = (record.links or {}).get(to_type, {})
    left = tuple(one for one in there.get(to_id, ()) if one not in kinds)
    if left:
        there[to_id] = left
    else:
        there.pop(to_id, None)
    if record.links is not None and not there:
        record.links.pop(to_type, None)
