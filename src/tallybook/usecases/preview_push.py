"""Lists what a push would write now. Nothing is claimed, numbered or changed, on either side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.portal_shape import never_sent
from tallybook.usecases.mirror import Mirror


@dataclass(frozen=True, slots=True)
class PlannedWrite:
    """What is due about one object.

    `action`: `create` and `upsert` make a record, `update` changes one, `read` looks at it first (what is
    written then is decided by what stands there), `wait` is for an object HubSpot does not have yet.
    `properties` are HubSpot's, None empties one. `dead`: given up; it is not sent until somebody asks for it.
    """

    object_type: MirroredType
    object_id: UUID
    hubspot_id: str | None
    waiting_since: datetime
    dead: bool
    action: str
    properties: dict[str, str | None]


async def preview_push(mirror: Mirror) -> list[PlannedWrite]:
    """What waits, the oldest first. What HubSpot calculates is left out where HubSpot answers."""
    # Looking at what waits here must not depend on HubSpot.
    skip = {lane.value: await never_sent(mirror.client, lane, kind=CallKind.PUSH) for lane in MirroredType}
    rows = await mirror.db.fetch_all("preview_push", {"skip": msgspec.json.encode(skip).decode()})
    return [
        PlannedWrite(
            MirroredType(object_type),
            object_id,
            hubspot_id,
            waiting_since,
            dead,
            action,
            msgspec.json.decode(properties, type=dict[str, str | None]),
        )
        for object_type, object_id, hubspot_id, waiting_since, dead, action, properties in rows
    ]
