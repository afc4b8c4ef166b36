"""The state file: the portal's definitions and records, written whole and put in place at once."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from hubspot_simulator.definitions import LinkType, ObjectType
from hubspot_simulator.portal import Portal
from hubspot_simulator.records import Entry, Record, RecordStore, Source, uncollected

FORMAT = 1
CHUNK = 5_000


class StateError(Exception):
    """A state file that cannot be read."""


class _StoreHead(msgspec.Struct):
    kind: ObjectType
    columns: list[str]
    next_id: int
    chunks: int
    merged: dict[int, tuple[int, ...]] = {}


class _Head(msgspec.Struct):
    format: int
    portal_id: int
    clock_offset_s: float
    link_types: list[LinkType]
    stores: list[_StoreHead]
    blocked_emails: list[str] = []


class _Row(msgspec.Struct, array_like=True):
    id: int
    values: tuple[str | None, ...]
    created_ms: int
    modified_ms: int
    archived_ms: int | None
    source: Source
    history: dict[str, tuple[Entry, ...]] | None
    links: dict[str, dict[int, tuple[int, ...]]] | None


def _blocks(portal: Portal) -> Iterator[bytes]:
    encode = msgspec.msgpack.Encoder().encode
    heads = [
        _StoreHead(store.kind, list(store.columns), store.next_id, -(-len(store.ids) // CHUNK), store.merged)
        for store in portal.stores.values()
    ]
    links = list(portal.link_types.values())
    yield encode(
        _Head(
            FORMAT,
            portal.settings.portal_id,
            portal.settings.clock_offset_s,
            links,
            heads,
            sorted(portal.blocked_emails),
        )
    )
    for store in portal.stores.values():
        for start in range(0, len(store.records), CHUNK):
            yield encode([_row(one) for one in store.records[start : start + CHUNK]])


def _row(one: Record) -> _Row:
    return _Row(
        one.id,
        one.values,
        one.created_ms,
        one.modified_ms,
        one.archived_ms,
        one.source,
        one.history,
        one.links,
    )


def save(portal: Portal, path: Path) -> None:
    """Write the portal's state to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        for block in _blocks(portal):
            file.write(len(block).to_bytes(8, "big"))
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load(portal: Portal, path: Path) -> None:
    """Put the portal into the state a file holds; StateError when it is none of ours or cut short."""
    try:
        with path.open("rb") as file, uncollected():
            blocks = iter(lambda: _block(file), None)
            head = msgspec.msgpack.decode(_next(blocks), type=_Head)
            if head.format != FORMAT:
                raise StateError(f"{path} has format {head.format}; this simulator reads {FORMAT}")
            portal.configure(portal_id=head.portal_id, clock_offset_s=head.clock_offset_s)
            portal.link_types = {one.type_id: one for one in head.link_types}
            portal.blocked_emails = set(head.blocked_emails)
            portal.stores = {}
            decoder = msgspec.msgpack.Decoder(list[_Row])
            sources: dict[Source, Source] = {}
            for one in head.stores:
                store = portal.add_type(one.kind)
                store.columns = {name: at for at, name in enumerate(one.columns)}
                for _ in range(one.chunks):
                    _fill(store, decoder.decode(_next(blocks)), sources)
                store.next_id = one.next_id
                store.merged = one.merged
                store.became = {part: whole for whole, parts in one.merged.items() for part in parts}
                store.index.rebuild()
    except (msgspec.MsgspecError, EOFError) as error:
        raise StateError(f"{path} is not a state file of this simulator: {error}") from None


def _fill(store: RecordStore, rows: list[_Row], sources: dict[Source, Source]) -> None:
    for row in rows:
        record = Record(row.id, row.values, row.created_ms, sources.setdefault(row.source, row.source))
        record.modified_ms = row.modified_ms
        record.archived_ms = row.archived_ms
        record.history = row.history
        record.links = row.links
        store.append(record)


def _block(file: Any) -> bytes | None:
    size = file.read(8)
    if not size:
        return None
    block: bytes = file.read(int.from_bytes(size, "big"))
    if len(block) != int.from_bytes(size, "big"):
        raise EOFError("it ends in the middle of a block")
    return block


def _next(blocks: Iterator[bytes | None]) -> bytes:
    block = next(blocks, None)
    if block is None:
        raise EOFError("it ends too early")
    return block
