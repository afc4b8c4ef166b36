"""Records of one object type: compact rows, unique values, property history."""

import gc
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from hubspot_simulator.definitions import ObjectType
from hubspot_simulator.search_index import SearchIndex
from hubspot_simulator.values import folded, iso


@contextmanager
def uncollected() -> Iterator[None]:
    """Make many records at once without the garbage collector, and keep it off them for good.

    Records hold no cycles, so reference counts free them; walking a million of them holds up every call.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


class Source(NamedTuple):
    """Who wrote a value: an app (`INTEGRATION`), a person (`CRM_UI`) or an import."""

    kind: str
    source_id: str
    user: str | None = None


class Entry(NamedTuple):
    """One entry of a property's history."""

    value: str
    at_ms: int
    source: Source


class Record:
    """One record.

    `values` is a tuple by column; a property not in `history` has held its value since creation.
    """

    __slots__ = ("archived_ms", "created_ms", "history", "id", "links", "modified_ms", "source", "values")

    def __init__(self, record_id: int, values: tuple[str | None, ...], at_ms: int, source: Source) -> None:
        self.id = record_id
        self.values = values
        self.created_ms = at_ms
        self.modified_ms = at_ms
        self.archived_ms: int | None = None
        self.source = source
        self.history: dict[str, tuple[Entry, ...]] | None = None
        self.links: dict[str, dict[int, tuple[int, ...]]] | None = None

    def copy(self) -> "Record":
        """The record as it stands now, for the search index."""
        twin = Record(self.id, self.values, self.created_ms, self.source)
        twin.modified_ms = self.modified_ms
        twin.archived_ms = self.archived_ms
        twin.links = None if self.links is None else {kind: dict(ids) for kind, ids in self.links.items()}
        return twin


class TakenError(Exception):
    """A unique value that another record has."""

    def __init__(self, name: str, value: str, owner_id: int) -> None:
        super().__init__(name)
        self.name = name
        self.value = value
        self.owner_id = owner_id


class RecordStore:
    """All records of one type, in the order of their ids, which only grow."""

    def __init__(self, kind: ObjectType, *, first_id: int) -> None:
        self.kind = kind
        self.ids: array[int] = array("q")
        self.records: list[Record] = []
        self.columns: dict[str, int] = {}
        self.unique: dict[str, dict[str, int]] = {}
        self.archived: set[int] = set()
        # What a merged record was made of, oldest first, and the other way round.
        self.merged: dict[int, tuple[int, ...]] = {}
        self.became: dict[int, int] = {}
        self.next_id = first_id
        self.index = SearchIndex(self)
        for name in kind.properties:
            self.add_column(name)

    def add_column(self, name: str) -> None:
        """Give a defined property its column, and its index when it is unique."""
        prop = self.kind.properties[name]
        if prop.rollup is None and not prop.read_only:
            self.columns.setdefault(name, len(self.columns))
        if prop.unique:
            self.unique.setdefault(name, {})

    def drop_column(self, name: str) -> None:
        """Forget a property's values and histories; its column stays for a property of that name to come."""
        self.unique.pop(name, None)
        self.index.forget(name)
        column = self.columns.get(name)
        for record in self.records if column is not None else ():
            if column is not None and column < len(record.values) and record.values[column] is not None:
                record.values = (*record.values[:column], None, *record.values[column + 1 :])
            if record.history is not None and name in record.history:
                record.history = {one: kept for one, kept in record.history.items() if one != name}

    def get(self, record_id: int) -> Record | None:
        """The record with this id, archived or not; ids that were merged lead to what they became."""
        return self.exact(self.became.get(record_id, record_id))

    def exact(self, record_id: int) -> Record | None:
        """The record with this very id, archived or not."""
        at = bisect_left(self.ids, record_id)
        if at < len(self.ids) and self.ids[at] == record_id:
            return self.records[at]
        return None

    def live(self, record_id: int) -> Record | None:
        """The record with this id unless it is archived."""
        record = self.get(record_id)
        return None if record is None or record.archived_ms is not None else record

    def by_unique(self, name: str, value: str) -> Record | None:
        """The live record that holds a unique value."""
        record_id = self.unique[name].get(folded(value))
        return None if record_id is None else self.get(record_id)

    def value(self, record: Record, name: str) -> str | None:
        """A property's text, the system's own included; None when it is not set.

        Roll-ups are the portal's.
        """
        column = self.columns.get(name)
        if column is not None:
            return record.values[column] if column < len(record.values) else None
        if name == "hs_object_id":
            return str(record.id)
        if name == self.kind.modified_name:
            return iso(record.modified_ms)
        if name == self.kind.created_name:
            return iso(record.created_ms)
        if name == "hs_merged_object_ids" and record.id in self.merged:
            return ";".join(map(str, self.merged[record.id]))
        return None

    def entries(self, record: Record, name: str) -> tuple[Entry, ...]:
        """The history of a property, oldest first."""
        if record.history is not None and name in record.history:
            return record.history[name]
        value = self.value(record, name)
        if value is None:
            return ()
        late = {self.kind.modified_name, "hs_merged_object_ids"}
        at_ms = record.modified_ms if name in late else record.created_ms
        return (Entry(value, at_ms, record.source),)

    def walk(self, first_id: int, *, archived: bool) -> Iterator[Record]:
        """Records with ids >= `first_id` in order: the live ones, or the archived ones."""
        if archived:
            for record_id in sorted(one for one in self.archived if one >= first_id):
                record = self.get(record_id)
                assert record is not None
                yield record
            return
        for at in range(bisect_left(self.ids, first_id), len(self.ids)):
            record = self.records[at]
            if record.archived_ms is None:
                yield record

    def new_id(self) -> int:
        """The next id: ids of one type grow, with gaps, and say nothing about those of another type."""
        record_id = self.next_id
        # The gap depends on the id alone, so the same portal filled again has the same ids.
        self.next_id += 1 + (record_id * 2_654_435_761 >> 7) % 41
        return record_id

    def add(self, changes: Mapping[str, str], *, at_ms: int, source: Source, skew_ms: int = 0) -> Record:
        """Create a record from checked values; TakenError when a unique one is taken."""
        self.refuse_taken(None, changes)
        row: list[str | None] = [None] * (1 + max((self.columns[name] for name in changes), default=-1))
        for name, text in changes.items():
            row[self.columns[name]] = text or None
        record = Record(self.new_id(), tuple(row), at_ms, source)
        if skew_ms:
            times = _times([name for name, text in changes.items() if text], at_ms=at_ms, skew_ms=skew_ms)
            record.history = {name: (Entry(changes[name], when, source),) for name, when in times.items()}
        self.append(record)
        self.index.created(record)
        return record

    def append(self, record: Record) -> None:
        """Put a record with a new, larger id into its place; the search index is the caller's."""
        self.ids.append(record.id)
        self.records.append(record)
        self._claim(record)
        if record.archived_ms is not None:
            self.archived.add(record.id)

    def remove(self, record: Record) -> None:
        """Take a record out for good; its unique values become free, its id leads nowhere."""
        self.index.changing(record, self.columns)
        self._release(record)
        at = bisect_left(self.ids, record.id)
        del self.ids[at]
        del self.records[at]
        self.archived.discard(record.id)
        self.merged.pop(record.id, None)

    def write(
        self,
        record: Record,
        changes: Mapping[str, str],
        *,
        at_ms: int,
        source: Source,
        keep: int,
        same_value_entry: bool,
        skew_ms: int = 0,
    ) -> list[str]:
        """Apply checked values; returns the names that changed.

        `keep` is how many history entries stay, `skew_ms` by how much their times may differ.
        """
        changed = [
            name
            for name, text in changes.items()
            if same_value_entry or (self.value(record, name) or "") != text
        ]
        if not changed:
            return changed
        self.refuse_taken(record, {name: changes[name] for name in changed})
        self.index.changing(record, changed)
        self._release(record)
        history = dict(record.history or {})
        row = list(record.values)
        times = _times(changed, at_ms=at_ms, skew_ms=skew_ms)
        for name in changed:
            before = self.entries(record, name)
            # A history stays in the order of its times, whatever they are.
            when = min(at_ms, max(times[name], before[-1].at_ms + 1)) if before else times[name]
            history[name] = (*before, Entry(changes[name], when, source))[-keep:]
            column = self.columns[name]
            row.extend([None] * (column + 1 - len(row)))
            row[column] = changes[name] or None
        record.history = history
        record.values = tuple(row)
        record.modified_ms = max(at_ms, record.modified_ms)
        self._claim(record)
        self.index.changed(record, changed)
        return changed

    def archive(self, record: Record, *, at_ms: int) -> None:
        """Archive a live record; its unique values become free."""
        self.index.changing(record, ())
        self._release(record)
        record.archived_ms = at_ms
        self.archived.add(record.id)
        self.index.changed(record, ())

    def restore(self, record: Record, *, at_ms: int) -> None:
        """Bring an archived record back; TakenError when its unique values have gone to another."""
        mine = {name: self.value(record, name) or "" for name in self.unique}
        self.refuse_taken(record, mine)
        self.index.changing(record, ())
        record.archived_ms = None
        record.modified_ms = max(at_ms, record.modified_ms)
        self.archived.discard(record.id)
        self._claim(record)
        self.index.changed(record, ())

    def _unique_values(self, name: str, text: str) -> list[str]:
        parts = text.split(";") if name == "hs_additional_emails" else [text]
        return [folded(part) for part in parts if part.strip()]

    def _held(self, record: Record) -> Iterator[tuple[str, str]]:
        for name in self.unique:
            for value in self._unique_values(name, self.value(record, name) or ""):
                yield name, value
        if "hs_additional_emails" in self.columns:
            for value in self._unique_values(
                "hs_additional_emails", self.value(record, "hs_additional_emails") or ""
            ):
                yield "email", value

    def _claim(self, record: Record) -> None:
        if record.archived_ms is None:
            for name, value in self._held(record):
                self.unique[name][value] = record.id

    def _release(self, record: Record) -> None:
        for name, value in self._held(record):
            if self.unique[name].get(value) == record.id:
                del self.unique[name][value]

    def refuse_taken(self, record: Record | None, changes: Mapping[str, str]) -> None:
        """TakenError when a unique value of `changes` belongs to a record other than this one."""
        own_id = None if record is None else record.id
        for name, text in changes.items():
            # Additional e-mails share the index of `email`: an address belongs to one contact either way.
            index = self.unique.get("email" if name == "hs_additional_emails" else name)
            if index is None:
                continue
            for value in self._unique_values(name, text):
                owner_id = index.get(value)
                if owner_id is not None and owner_id != own_id:
                    raise TakenError(name, text, owner_id)


def _times(names: Sequence[str], *, at_ms: int, skew_ms: int) -> dict[str, int]:
    """When histories say that each value of one request was written: spread evenly over the time before it.

    Which of them comes first changes from request to request.
    """
    steps = max(len(names) - 1, 1)
    return {
        name: at_ms - skew_ms * ((place + at_ms) % len(names)) // steps for place, name in enumerate(names)
    }
