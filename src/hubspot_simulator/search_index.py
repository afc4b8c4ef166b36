"""The search index of one object type: it has a clock of its own and may lag behind the records."""

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hubspot_simulator.values import folded

if TYPE_CHECKING:
    from hubspot_simulator.records import Record, RecordStore

INDEX_FROM = 500


class SearchIndex:
    """Finds candidates fast and shows each record as it was indexed.

    While a write waits for its turn, search goes on seeing the record as it was; None means "not there".
    """

    def __init__(self, store: "RecordStore") -> None:
        self.store = store
        self.lag_s = 0.0
        self.now_s = 0.0
        self._log_ms: array[int] = array("q")
        self._log_ids: array[int] = array("q")
        self._by_value: dict[str, dict[str, int | set[int]]] = {}
        self._waiting: dict[int, list[tuple[float, Record | None]]] = {}
        self._due: deque[tuple[float, int]] = deque()

    def created(self, record: "Record") -> None:
        """Take in a new record."""
        if self.lag_s > 0:
            self._wait(record.id, None)
        self._log(record)
        for name, values in self._by_value.items():
            self._put(values, record.id, self.store.value(record, name))

    def changing(self, record: "Record", names: Iterable[str]) -> None:
        """Called before a write: keep what search goes on seeing, drop what is indexed by value."""
        if self.lag_s > 0:
            self._wait(record.id, record.copy())
        for name in names:
            if name in self._by_value:
                self._drop(self._by_value[name], record.id, self.store.value(record, name))

    def changed(self, record: "Record", names: Iterable[str]) -> None:
        """Called after the write."""
        self._log(record)
        for name in names:
            if name in self._by_value:
                self._put(self._by_value[name], record.id, self.store.value(record, name))

    def forget(self, name: str) -> None:
        """Drop what is indexed of a property."""
        self._by_value.pop(name, None)

    def rebuild(self) -> None:
        """Index everything anew, at once; for portals that were filled or loaded in one go."""
        self._by_value.clear()
        self._waiting.clear()
        self._due.clear()
        order = sorted(self.store.records, key=_modified)
        self._log_ms = array("q", (one.modified_ms for one in order))
        self._log_ids = array("q", (one.id for one in order))

    def _wait(self, record_id: int, version: "Record | None") -> None:
        due_s = self.now_s + self.lag_s
        self._waiting.setdefault(record_id, []).append((due_s, version))
        self._due.append((due_s, record_id))

    def advance(self, now_s: float) -> None:
        """Set the index clock and forget the versions that are no longer shown."""
        self.now_s = now_s
        # Every write comes by here, so only the oldest are looked at; `view` knows which still count.
        while self._due and self._due[0][0] <= now_s:
            _, record_id = self._due.popleft()
            versions = self._waiting.get(record_id, [])
            while versions and versions[0][0] <= now_s:
                versions.pop(0)
            if not versions:
                self._waiting.pop(record_id, None)

    def view(self, record_id: int) -> "Record | None":
        """The record as search sees it now; None when it is not indexed or archived."""
        for due_s, version in self._waiting.get(record_id, ()):
            if due_s > self.now_s:
                return _unless_archived(version)
        return _unless_archived(self.store.exact(record_id))

    def everything(self) -> Sequence[int]:
        """All ids."""
        return self.store.ids

    def waiting(self) -> Iterable[int]:
        """Ids whose indexed version differs from the record."""
        return self._waiting

    def from_id(self, lowest: int, highest: int | None) -> Sequence[int]:
        """Ids in a closed range."""
        ids = self.store.ids
        end = len(ids) if highest is None else bisect_left(ids, highest + 1)
        return ids[bisect_left(ids, lowest) : end]

    def modified_from(self, at_ms: int) -> Sequence[int]:
        """Ids of records written at or after an instant; may name a record twice."""
        return self._log_ids[bisect_left(self._log_ms, at_ms) :]

    def equal_to(self, name: str, values: Iterable[str]) -> Sequence[int] | None:
        """Ids whose text is one of `values`, cases ignored; None while a scan is cheaper."""
        unique = self.store.unique.get(name)
        if unique is not None:
            return [owner for value in values if (owner := unique.get(folded(value))) is not None]
        if name not in self._by_value:
            if len(self.store.ids) < INDEX_FROM or name not in self.store.columns:
                return None
            built: dict[str, int | set[int]] = {}
            for record in self.store.records:
                self._put(built, record.id, self.store.value(record, name))
            self._by_value[name] = built
        found: list[int] = []
        for value in values:
            hit = self._by_value[name].get(folded(value))
            if isinstance(hit, int):
                found.append(hit)
            elif hit is not None:
                found.extend(hit)
        return found

    def _log(self, record: "Record") -> None:
        # Modification times come from one clock that never steps back, so appending keeps the log sorted,
        # save for records that got older times when the portal was filled: rebuild() puts those in.
        if self._log_ms and record.modified_ms < self._log_ms[-1]:
            at = bisect_left(self._log_ms, record.modified_ms)
            self._log_ms.insert(at, record.modified_ms)
            self._log_ids.insert(at, record.id)
        else:
            self._log_ms.append(record.modified_ms)
            self._log_ids.append(record.id)
        if len(self._log_ms) > 2 * len(self.store.ids) + 10_000:
            order = sorted(self.store.records, key=_modified)
            self._log_ms = array("q", (one.modified_ms for one in order))
            self._log_ids = array("q", (one.id for one in order))

    @staticmethod
    def _put(values: dict[str, int | set[int]], record_id: int, text: str | None) -> None:
        if text is None:
            return
        key = folded(text)
        there = values.get(key)
        if there is None:
            values[key] = record_id
        elif isinstance(there, set):
            there.add(record_id)
        elif there != record_id:
            values[key] = {there, record_id}

    @staticmethod
    def _drop(values: dict[str, int | set[int]], record_id: int, text: str | None) -> None:
        if text is None:
            return
        key = folded(text)
        there = values.get(key)
        if isinstance(there, set):
            there.discard(record_id)
        elif there == record_id:
            del values[key]


def _modified(record: "Record") -> int:
    return record.modified_ms


def _unless_archived(record: "Record | None") -> "Record | None":
    return None if record is None or record.archived_ms is not None else record
