"""Tells HubSpot of sessions: seats taken without reading, the rest where it has changed here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.fields import ID_PROPERTY
from tallybook.hubspot.portal_shape import LaneShape
from tallybook.hubspot.write_results import WriteOutcome
from tallybook.hubspot.writes import RecordWrite
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.outbox import Claim, Planned, confirmation
from tallybook.usecases.push_bookings import SLOT_WAIT_S
from tallybook.usecases.send_in_parts import PartsSent, send_in_parts


async def push_mock_exams(mirror: Mirror, claim: Claim, shape: LaneShape) -> PartsSent:
    """Sends what is claimed and confirms what HubSpot has taken."""
    del shape
    planned = await claim.prepare(claim.ids)
    sent = PartsSent()
    for action in ("upsert", "update"):
        items = [item for item in planned if item.action == action]
        if sent.stop is not None:
            sent.unsent += items
        else:
            sent.add(await send_in_parts(claim, items, partial(_write, mirror, action)))
    settled = await claim.confirm([confirmation(item, record) for item, record in sent.written])
    await claim.release([item.id for item, _ in sent.written if item.id not in settled], wait_s=1.0)
    return sent


async def _write(mirror: Mirror, action: str, items: Sequence[Planned]) -> WriteOutcome:
    object_type = mirror.crm_type(MirroredType.MOCK_EXAM)
    if action == "update":
        records = [RecordWrite(item.key, item.properties, id=item.hubspot_id) for item in items]
        return await mirror.client.batch_update(object_type, records, kind=CallKind.PUSH, wait_s=SLOT_WAIT_S)
    return await mirror.client.batch_upsert(
        object_type,
        [RecordWrite(item.key, item.properties, id=item.key) for item in items],
        id_property=ID_PROPERTY,
        kind=CallKind.PUSH,
        wait_s=SLOT_WAIT_S,
    )
