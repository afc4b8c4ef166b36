"""The calls that change HubSpot. Each is sent once: whether to send it again depends on what became of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.connection import HubSpotConnection, associations_path, objects_path
from tallybook.hubspot.records import AssociationType
from tallybook.hubspot.write_results import (
    BatchAnswer,
    Refusal,
    Unknown,
    WriteOutcome,
    Written,
    WrittenRecord,
    batch_error,
    refusal_of,
    refusal_of_record,
)

Values = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that came, whatever its status."""

    status: int
    content: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Association:
    """That a record is associated with another one."""

    to_id: str
    type: AssociationType

    def inline(self) -> dict[str, Any]:
        """As a new record carries it."""
        return {"to": {"id": self.to_id}, "types": [self.type.spec()]}


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """What to write about a record. `key` names it in the outcome; `id` is HubSpot's or the unique value."""

    key: str
    properties: Values
    id: str | None = None
    associations: tuple[Association, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """An association to make or to end."""

    key: str
    from_id: str
    to_id: str


class WriteCalls(ABC):
    """Batches of at most 100 records. `wait_s`: how long to wait for a slot; else nothing is sent (busy)."""

    connection: HubSpotConnection

    @abstractmethod
    async def send_once(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        *,
        operation: str,
        kind: CallKind,
        wait_s: float,
    ) -> Answer | Refusal | Unknown:
        """One call in one slot, never repeated: the answer, or why there is none."""

    async def batch_create(
        self, object_type: str, records: Sequence[RecordWrite], *, kind: CallKind, wait_s: float
    ) -> WriteOutcome:
        """New records with their associations; where the outcome is unknown, they may exist."""
        inputs = [
            {
                "properties": _sent(each.properties),
                "associations": [one.inline() for one in each.associations],
                "objectWriteTraceId": each.key,
            }
            for each in records
        ]
        return await self._batch(object_type, "create", inputs, records, kind=kind, wait_s=wait_s)

    async def batch_update(
        self, object_type: str, records: Sequence[RecordWrite], *, kind: CallKind, wait_s: float
    ) -> WriteOutcome:
        """Some properties of records named by HubSpot's id; NULL clears one."""
        inputs = [
            {"id": each.id, "properties": _sent(each.properties), "objectWriteTraceId": each.key}
            for each in records
        ]
        return await self._batch(object_type, "update", inputs, records, kind=kind, wait_s=wait_s)

    async def batch_upsert(
        self,
        object_type: str,
        records: Sequence[RecordWrite],
        *,
        id_property: str,
        kind: CallKind,
        wait_s: float,
    ) -> WriteOutcome:
        """Records named by a unique property: made if there are none, else written. Safe to repeat."""
        inputs = [
            {
                "id": each.id,
                "idProperty": id_property,
                "properties": _sent(each.properties),
                "objectWriteTraceId": each.key,
            }
            for each in records
        ]
        return await self._batch(object_type, "upsert", inputs, records, kind=kind, wait_s=wait_s)

    async def associate(
        self,
        from_type: str,
        to_type: str,
        links: Sequence[Link],
        *,
        type: AssociationType,  # noqa: A002 - HubSpot's word.
        kind: CallKind,
        wait_s: float,
    ) -> WriteOutcome:
        """Associates pairs of records; those that are so already stay so."""
        inputs = [
            {"from": {"id": each.from_id}, "to": {"id": each.to_id}, "types": [type.spec()]} for each in links
        ]
        path = associations_path(from_type, to_type, "batch/create")
        return await self._link(path, f"associate {from_type}", inputs, links, kind=kind, wait_s=wait_s)

    async def separate(
        self, from_type: str, to_type: str, links: Sequence[Link], *, kind: CallKind, wait_s: float
    ) -> WriteOutcome:
        """Ends all associations of pairs of records; those that have none are passed over."""
        inputs = [{"from": {"id": each.from_id}, "to": [{"id": each.to_id}]} for each in links]
        path = associations_path(from_type, to_type, "batch/archive")
        return await self._link(path, f"separate {from_type}", inputs, links, kind=kind, wait_s=wait_s)

    async def _batch(
        self,
        object_type: str,
        verb: str,
        inputs: list[dict[str, Any]],
        records: Sequence[RecordWrite],
        *,
        kind: CallKind,
        wait_s: float,
    ) -> WriteOutcome:
        got = await self.send_once(
            "POST",
            objects_path(object_type, f"batch/{verb}"),
            {"inputs": inputs},
            operation=f"{verb} {object_type}",
            kind=kind,
            wait_s=wait_s,
        )
        failed = self._judged(got)
        if failed is not None:
            return failed
        assert isinstance(got, Answer)
        try:
            answer = msgspec.json.decode(got.content, type=BatchAnswer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Unknown(f"HubSpot's answer is not readable: {error}")
        return _by_key(answer, records, token=self.connection.token)

    async def _link(
        self,
        path: str,
        operation: str,
        inputs: list[dict[str, Any]],
        links: Sequence[Link],
        *,
        kind: CallKind,
        wait_s: float,
    ) -> WriteOutcome:
        got = await self.send_once(
            "POST", path, {"inputs": inputs}, operation=operation, kind=kind, wait_s=wait_s
        )
        failed = self._judged(got)
        if failed is not None:
            return failed
        assert isinstance(got, Answer)
        try:
            errors = msgspec.json.decode(got.content, type=_Errors).errors if got.content else []
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Unknown(f"HubSpot's answer is not readable: {error}")
        if errors:
            # Which pairs they are about is documented nowhere: all are asked for again, by themselves.
            return refusal_of_record(batch_error(errors[0]), token=self.connection.token)
        return Written({each.key: WrittenRecord(each.from_id) for each in links})

    def _judged(self, got: Answer | Refusal | Unknown) -> Refusal | Unknown | None:
        """Why a call was no success; None when it was one."""
        if not isinstance(got, Answer):
            return got
        if 200 <= got.status < 300:
            return None
        if got.status >= 500 or got.status == 408:
            return Unknown(f"HTTP {got.status}")
        return refusal_of(got.status, body=got.content, headers=got.headers, token=self.connection.token)


class _Errors(msgspec.Struct):
    errors: list[Any] = []


def _sent(values: Values) -> dict[str, str]:
    return {name: text or "" for name, text in values.items()}


def _by_key(answer: BatchAnswer, records: Sequence[RecordWrite], *, token: str) -> Written:
    """Results and errors under our keys: by trace id where HubSpot gives it back, else by the id it names."""
    keys = {each.key for each in records}
    by_name = {each.id: each.key for each in records if each.id is not None}
    written: dict[str, WrittenRecord] = {}
    for result in answer.results:
        names = (result.object_write_trace_id, result.id, result.properties.get("tallybook_id"))
        key = next(
            (by_name.get(name, name) for name in names if name and (name in keys or name in by_name)), None
        )
        if key is not None:
            written[key] = result
    refusals: dict[str, Refusal] = {}
    left = [each.key for each in records if each.key not in written]
    for error in map(batch_error, answer.errors):
        named = [
            str(name) for key in ("objectWriteTraceId", "ids", "id") for name in _listed(error.context, key)
        ]
        found = [key for name in named if (key := by_name.get(name, name)) in left]
        # An error that names nobody can only be about the one that is left.
        for key in found or (left if len(left) == 1 else []):
            refusals[key] = refusal_of_record(error, token=token)
    return Written(written, refusals)


def _listed(context: Mapping[str, Any], key: str) -> list[Any]:
    value = context.get(key, [])
    return value if isinstance(value, list) else [value]
