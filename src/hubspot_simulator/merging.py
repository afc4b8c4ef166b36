"""Merging two records into a new one, and deleting one for good."""

from hubspot_simulator.errors import ApiError, invalid
from hubspot_simulator.links import hand_over
from hubspot_simulator.portal import Portal
from hubspot_simulator.records import Entry, Record, RecordStore, Source

IDENTITIES_MAX = 250
EMAIL, MORE_EMAILS = "email", "hs_additional_emails"


def merge(
    portal: Portal, store: RecordStore, primary: Record, other: Record, *, at_ms: int, source: Source
) -> Record:
    """Make one new record of two: the primary's values, both histories and associations.

    ApiError 400 for archived records and for a record and itself, 414 when more than 250 would have gone
    into one.
    """
    if primary.archived_ms is not None or other.archived_ms is not None:
        raise invalid("An archived object cannot be merged")
    if primary is other:
        raise invalid("An object cannot be merged with itself")
    parts = [*store.merged.get(primary.id, ()), primary.id, *store.merged.get(other.id, ()), other.id]
    # Of n records merged one by one, n - 1 are merged records themselves.
    if len(parts) // 2 + 1 > IDENTITIES_MAX:
        raise ApiError(
            414,
            f"Cannot have more than {IDENTITIES_MAX} identities on a profile",
            category="VALIDATION_ERROR",
        )
    portal.version += 1
    store.index.advance(portal.now_s())
    merged_by = Source("MERGE_OBJECTS", source.source_id, source.user)
    values, history = _joined(portal, store, primary, other, by=merged_by, at_ms=at_ms)
    record = Record(store.new_id(), values, min(primary.created_ms, other.created_ms), primary.source)
    record.modified_ms = max(at_ms, primary.modified_ms, other.modified_ms)
    record.history = history
    moved = sum(bool(store.entries(other, name)) for name in store.columns)
    for one in (primary, other):
        store.remove(one)
    store.append(record)
    store.index.created(record)
    for one in (primary, other):
        hand_over(portal, store, one, record)
    store.merged[record.id] = tuple(parts)
    store.became.update(dict.fromkeys(parts, record.id))
    portal.tell(
        store,
        record.id,
        "merge",
        at_ms=at_ms,
        source=source,
        primaryObjectId=primary.id,
        mergedObjectIds=[other.id],
        newObjectId=record.id,
        numberOfPropertiesMoved=moved,
    )
    return record


def _joined(
    portal: Portal, store: RecordStore, primary: Record, other: Record, *, by: Source, at_ms: int
) -> tuple[tuple[str | None, ...], dict[str, tuple[Entry, ...]]]:
    """The values of the merged record by column, and its history."""
    emails = _emails(store, primary, other)
    row: list[str | None] = [None] * len(store.columns)
    history: dict[str, tuple[Entry, ...]] = {}
    for name, column in store.columns.items():
        ours, theirs = store.entries(primary, name), store.entries(other, name)
        # A value the primary never had does not overwrite the other's; one that was cleared stays cleared.
        wins = primary if ours or not portal.settings.merge_fills else other
        value = emails[name] if name in emails else store.value(wins, name)
        times = {entry.at_ms for entry in ours}
        entries = sorted((*ours, *(one for one in theirs if one.at_ms not in times)), key=_at)
        if (entries[-1].value if entries else "") != (value or ""):
            entries.append(Entry(value or "", at_ms, by))
        if entries:
            history[name] = tuple(entries[-portal.settings.history_limit :])
        row[column] = value or None
    return tuple(row), history


def _emails(store: RecordStore, primary: Record, other: Record) -> dict[str, str]:
    """The e-mail of the merged contact, and all other addresses of the two; nothing for other types."""
    if MORE_EMAILS not in store.columns:
        return {}
    found = [store.value(one, EMAIL) or "" for one in (primary, other)]
    for one in (primary, other):
        found.extend((store.value(one, MORE_EMAILS) or "").split(";"))
    every = list(dict.fromkeys(one.strip().lower() for one in found if one.strip()))
    return {EMAIL: every[0] if every else "", MORE_EMAILS: ";".join(every[1:])}


def _at(entry: Entry) -> int:
    return entry.at_ms


def erase(portal: Portal, store: RecordStore, record: Record, *, at_ms: int, source: Source) -> None:
    """Delete a record for good, archived or not, with its associations; its ids lead nowhere."""
    portal.version += 1
    store.index.advance(portal.now_s())
    store.remove(record)
    hand_over(portal, store, record, None)
    portal.tell(store, record.id, "privacyDeletion", at_ms=at_ms, source=source)
    portal.tell(store, record.id, "deletion", at_ms=at_ms, source=source)
