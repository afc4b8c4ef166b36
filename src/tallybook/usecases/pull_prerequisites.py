"""Reads from HubSpot which sessions have to be attended first."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.association_reads import (
    ASSOCIATIONS_BATCH_SIZE,
    REQUIRES_ATTENDANCE,
    read_associations,
)
from tallybook.hubspot.budget import CallKind
from tallybook.usecases.mirror import Mirror


async def pull_prerequisites(
    mirror: Mirror, hubspot_ids: Sequence[str], *, kind: CallKind, deadline_s: float = 30.0
) -> tuple[str, ...]:
    """Merges what these mock exams require; gives the HubSpot ids of required ones that are not stored.

    A change of associations alone makes a record look no newer, so only reading them tells.
    """
    object_type = mirror.crm_type(MirroredType.MOCK_EXAM)
    unknown: list[str] = []
    for start in range(0, len(hubspot_ids), ASSOCIATIONS_BATCH_SIZE):
        required = await read_associations(
            mirror.client,
            object_type,
            hubspot_ids[start : start + ASSOCIATIONS_BATCH_SIZE],
            object_type,
            kind=kind,
            deadline_s=deadline_s,
            label=REQUIRES_ATTENDANCE,
        )
        rows = await mirror.db.fetch_all(
            "absorb_prerequisites", {"required": msgspec.json.encode(required).decode()}
        )
        unknown += [hubspot_id for (hubspot_id,) in rows]
    return tuple(dict.fromkeys(unknown))
