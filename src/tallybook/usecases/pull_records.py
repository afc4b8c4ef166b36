"""Reads records of any mirrored type and merges them."""

from __future__ import annotations

from collections.abc import Sequence

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.usecases.mirror import Mirror, Pulled
from tallybook.usecases.pull_bookings import pull_bookings
from tallybook.usecases.pull_contacts import pull_contacts
from tallybook.usecases.pull_mock_exams import pull_mock_exams

_PULL = {
    MirroredType.CONTACT: pull_contacts,
    MirroredType.MOCK_EXAM: pull_mock_exams,
    MirroredType.BOOKING: pull_bookings,
}


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
