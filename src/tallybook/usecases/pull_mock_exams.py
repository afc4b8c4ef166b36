"""Reads mock exams from HubSpot by their ids and merges what it says."""

from __future__ import annotations

from collections.abc import Sequence

from tallybook.domain.bookings import MOCK_DISCUSSION
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import BATCH_SIZE
from tallybook.hubspot.records import Record
from tallybook.hubspot.session_fields import MOCK_EXAM_PROPERTIES
from tallybook.usecases.absorb_answers import absorb_answers, gone, together
from tallybook.usecases.absorb_mock_exams import absorb_mock_exams
from tallybook.usecases.mirror import Mirror, Pulled
from tallybook.usecases.pull_prerequisites import pull_prerequisites


async def pull_mock_exams(
    mirror: Mirror, hubspot_ids: Sequence[str], *, kind: CallKind, deadline_s: float = 30.0
) -> Pulled:
    """Reads and absorbs them, a hundred at a time, with what they require.

    Those HubSpot no longer has are archived here, or wait for a person where they have live bookings.
    Raises CrmBusy, CrmUnavailable, SetupError, DatabaseUnavailable; what was absorbed until then stays.
    """
    wanted = list(dict.fromkeys(hubspot_ids))
    parts: list[Pulled] = []
    for start in range(0, len(wanted), BATCH_SIZE):
        batch = wanted[start : start + BATCH_SIZE]
        records = await mirror.client.batch_read(
            mirror.crm_type(MirroredType.MOCK_EXAM),
            batch,
            properties=MOCK_EXAM_PROPERTIES,
            kind=kind,
            deadline_s=deadline_s,
        )
        parts.append(await absorb_mock_exams(mirror, records))
        await pull_prerequisites(mirror, with_prerequisites(records), kind=kind, deadline_s=deadline_s)
        missing = sorted(set(batch) - {record.id for record in records})
        await absorb_answers(mirror.db, "mock_exams", [gone(hubspot_id) for hubspot_id in missing])
        parts.append(Pulled(missing=tuple(missing)))
    return together(parts)


def with_prerequisites(records: Sequence[Record]) -> list[str]:
    """The ids of those that can require others: discussions of sessions attended before."""
    return [
        record.id
        for record in records
        if (record.properties.get("mock_type") or "").strip() == MOCK_DISCUSSION
    ]
