"""Reads records of any mirrored type and merges them."""

from __future__ import annotations

from collections.abc import Sequence

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.usecases.mirror import Mirror, Pulled
from tallybook.usecases.pull_contacts import pull_contacts

_PULL = {MirroredType.CONTACT: pull_contacts}
PULLED_TYPES = tuple(_PULL)


async def pull_records(
    mirror: Mirror,
    mirrored: MirroredType,
    hubspot_ids: Sequence[str],
    *,
    kind: CallKind,
    deadline_s: float,
) -> Pulled:
    """Reads these records and merges them.

    Raises CrmBusy, CrmUnavailable, SetupError, DatabaseUnavailable.
    """
    return await _PULL[mirrored](mirror, hubspot_ids, kind=kind, deadline_s=deadline_s)
