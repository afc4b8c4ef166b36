"""Tells HubSpot of contacts: what has changed, then read back; never a second write before the first is read.

There is no read before a write. Whatever people typed in between stands in HubSpot's histories, and the
read-back finds it there and merges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

import msgspec

from tallybook.domain.errors import CrmBusy, CrmUnavailable, SetupError
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import HISTORY_BATCH_SIZE
from tallybook.hubspot.connection import CONTACTS
from tallybook.hubspot.fields import ID_PROPERTY, STAMP_PROPERTY
from tallybook.hubspot.histories import oldest_first, own_stamps, owners, source_of
from tallybook.hubspot.portal_shape import LaneShape
from tallybook.hubspot.records import HistoryEntry, Record
from tallybook.hubspot.write_results import Fault, Refusal, WriteOutcome, WrittenRecord
from tallybook.hubspot.writes import RecordWrite
from tallybook.usecases.learn_stamp_times import own_within
from tallybook.usecases.mirror import Mirror, Pulled
from tallybook.usecases.outbox import Claim, Failure, Planned
from tallybook.usecases.pause_lane import why_unreadable
from tallybook.usecases.pull_contacts import pull_contacts
from tallybook.usecases.push_bookings import SLOT_WAIT_S
from tallybook.usecases.send_in_parts import PartsSent, send_in_parts

_READ_WITHIN_S = 30.0
# Histories that are late are read again so soon; after that in the outbox's own time.
_AGAIN_S = (0.5, 2.0, 8.0)
_AGAIN = "HubSpot's histories are not up to its values yet"
_MISSING = "HubSpot has no such contact any more"
_FIGHT_S = 90.0
_CONFIRM_TRIES = 5


async def push_contacts(mirror: Mirror, claim: Claim, shape: LaneShape) -> PartsSent:
    """Sends what is claimed, reads it back, and confirms what both sides agree on."""
    del shape
    planned = await claim.prepare(claim.ids)
    by_action: dict[str, list[Planned]] = {}
    for item in planned:
        by_action.setdefault(item.action, []).append(item)
    to_read = by_action.get("read", [])
    sent = await send_in_parts(claim, by_action.get("update", []), partial(_update, mirror))
    to_read += [item for item, _ in sent.written]
    to_create = by_action.get("create", [])
    if sent.stop is None:
        created = await send_in_parts(claim, to_create, partial(_upsert, mirror))
        to_read += await _adopt(mirror, claim, created.written)
        sent.add(created)
    else:
        sent.unsent += to_create
    if sent.stop is None:
        await _look_up_refused(mirror, claim, sent)
        await _step_back(mirror, claim, by_action.get("fight", []))
    else:
        await claim.release(item.id for item in by_action.get("fight", []))
    if to_read:
        await _read_back(mirror, claim, to_read, sent)
    return sent


async def _update(mirror: Mirror, items: Sequence[Planned]) -> WriteOutcome:
    records = [RecordWrite(item.key, item.properties, id=item.hubspot_id) for item in items]
    return await mirror.client.batch_update(CONTACTS, records, kind=CallKind.PUSH, wait_s=SLOT_WAIT_S)


async def _upsert(mirror: Mirror, items: Sequence[Planned]) -> WriteOutcome:
    records = [RecordWrite(item.key, item.properties, id=item.key) for item in items]
    return await mirror.client.batch_upsert(
        CONTACTS, records, id_property=ID_PROPERTY, kind=CallKind.PUSH, wait_s=SLOT_WAIT_S
    )


async def _adopt(
    mirror: Mirror, claim: Claim, created: Sequence[tuple[Planned, WrittenRecord]]
) -> list[Planned]:
    """Keeps the ids of new records. They are read next: their numbers are met before ours are written."""
    if not created:
        return []
    rows = [{"id": item.id, "hubspot_id": record.id} for item, record in created]
    params = {"token": claim.token, "rows": msgspec.json.encode(rows).decode()}
    row = await mirror.db.fetch_one("adopt_contacts", params)
    assert row is not None
    adopted = frozenset(row[0])
    strange = {
        item.id: Failure(f"HubSpot's contact {record.id} is another contact here")
        for item, record in created
        if item.id not in adopted
    }
    await claim.fail(strange)
    return [
        msgspec.structs.replace(item, hubspot_id=record.id) for item, record in created if item.id in adopted
    ]


async def _look_up_refused(mirror: Mirror, claim: Claim, sent: PartsSent) -> None:
    """An e-mail HubSpot has already, or a record it has no more: reading tells what became of them."""
    found: dict[UUID, Failure] = {}
    ids: list[str] = []
    for item, refusal in sent.refused:
        id_ = refusal.existing_id if refusal.fault is Fault.TAKEN and item.action == "create" else None
        if refusal.fault is Fault.GONE:
            id_ = item.hubspot_id
        if id_ is not None:
            ids.append(id_)
            found[item.id] = Failure(refusal.words, wait_s=_AGAIN_S[0] if item.attempts == 0 else None)
    if not ids:
        return
    await claim.refuse(item for item, _ in sent.refused if item.id in found)
    try:
        await pull_contacts(mirror, ids, kind=CallKind.PUSH, deadline_s=_READ_WITHIN_S)
    except (CrmBusy, CrmUnavailable, SetupError) as error:
        sent.stop = why_unreadable(error)
    await claim.fail(found)
    sent.refused = [(item, refusal) for item, refusal in sent.refused if item.id not in found]


async def _read_back(mirror: Mirror, claim: Claim, items: Sequence[Planned], sent: PartsSent) -> None:
    ids = [str(item.hubspot_id) for item in items]
    try:
        pulled = await pull_contacts(
            mirror, ids, kind=CallKind.PUSH, deadline_s=_READ_WITHIN_S, with_history=True
        )
    except (CrmBusy, CrmUnavailable, SetupError) as error:
        # What was written stays unread: whoever has it next reads it before anything else.
        sent.stop = sent.stop or why_unreadable(error)
        await claim.release(item.id for item in items)
        return
    failures = {item.id: failure for item in items if (failure := _failed(item, pulled)) is not None}
    await claim.fail(failures)
    unmet = await _unmet(mirror, items, pulled.absent)
    if unmet:
        names = ", ".join(sorted({name for _, name in unmet}))
        words = f"HubSpot's contacts have no property {names}"
        sent.stop = sent.stop or Refusal(Fault.UNKNOWN_PROPERTY, words)
        await claim.release({id_ for id_, _ in unmet} - failures.keys())
    waiting = {*failures, *(id_ for id_, _ in unmet)}
    await _confirm(claim, [item for item in items if item.id not in waiting])


async def _unmet(
    mirror: Mirror, items: Sequence[Planned], absent: frozenset[str]
) -> Sequence[tuple[UUID, str]]:
    """Whose balances would be read for ever, and the properties that HubSpot does not have for them."""
    if not absent:
        return ()
    params = {"ids": [item.id for item in items], "properties": sorted(absent)}
    rows = await mirror.db.fetch_all("unmet_balances", params)
    return [(contact_id, name) for contact_id, name in rows]


def _failed(item: Planned, pulled: Pulled) -> Failure | None:
    """Why a contact cannot be confirmed after it was read."""
    hubspot_id = str(item.hubspot_id)
    if hubspot_id in pulled.again:
        return Failure(_AGAIN, wait_s=_AGAIN_S[item.attempts] if item.attempts < len(_AGAIN_S) else None)
    if hubspot_id in pulled.missing:
        return Failure(_MISSING, wait_s=_AGAIN_S[-1] if item.attempts == 0 else None)
    words = pulled.errors.get(hubspot_id)
    return Failure(words) if words is not None else None


async def _confirm(claim: Claim, items: Sequence[Planned]) -> None:
    """Settles what was read; who books at this very moment is tried again, then left for later."""
    left = {item.id: item for item in items}
    for _ in range(_CONFIRM_TRIES):
        rows = [
            {
                "id": item.id,
                "version": item.version,
                "hubspot_id": item.hubspot_id,
                "written": item.action != "read",
            }
            for item in left.values()
        ]
        settled = await claim.confirm(rows)
        left = {id_: item for id_, item in left.items() if id_ not in settled}
        if not left:
            return
    await claim.release(left, wait_s=0.2)


async def _step_back(mirror: Mirror, claim: Claim, items: Sequence[Planned]) -> None:
    """Somebody else keeps changing what we write: let it be for a while, and tell people who it is."""
    for start in range(0, len(items), HISTORY_BATCH_SIZE):
        part = items[start : start + HISTORY_BATCH_SIZE]
        names = sorted({name for item in part for name in item.properties} - {ID_PROPERTY})
        try:
            records = await mirror.client.batch_read(
                CONTACTS,
                [str(item.hubspot_id) for item in part],
                properties=names,
                with_history=[*names, STAMP_PROPERTY],
                kind=CallKind.PUSH,
                deadline_s=_READ_WITHIN_S,
            )
        except (CrmBusy, CrmUnavailable, SetupError):
            records = ()
        by_id = {record.id: record for record in records}
        within = await own_within(mirror.db)
        for item in part:
            record = by_id.get(str(item.hubspot_id))
            changed = sorted(set(item.properties) - {ID_PROPERTY})
            source = who_else(record, changed, within) if record is not None else "unknown"
            details = {"source": source, "properties": changed, "hubspot_id": item.hubspot_id}
            await mirror.db.fetch_all(
                "raise_alert",
                {
                    "kind": "contact_fight",
                    "subject": item.key,
                    "details": msgspec.json.encode(details).decode(),
                },
            )
        await claim.release((item.id for item in part), wait_s=_FIGHT_S)


def who_else(record: Record, properties: Sequence[str], within: timedelta) -> str:
    """Who, other than our requests, wrote one of these properties last: `source type:source id`."""
    history = record.properties_with_history or {}
    stamps = own_stamps(oldest_first(history.get(STAMP_PROPERTY, ())))
    newest: HistoryEntry | None = None
    for name in properties:
        entries = oldest_first(history.get(name, ()))
        for entry, owner in zip(entries, owners(entries, stamps, None, within), strict=True):
            if owner is None and (newest is None or entry.timestamp > newest.timestamp):
                newest = entry
    if newest is None:
        return "unknown"
    return ":".join(filter(None, source_of(newest))) or "unknown"
