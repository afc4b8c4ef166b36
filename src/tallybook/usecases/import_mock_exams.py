"""Brings all mock exams of a HubSpot portal into the database, and what they require."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.records import Record
from tallybook.hubspot.session_fields import MOCK_EXAM_PROPERTIES, parse_mock_exam
from tallybook.usecases.absorb_mock_exams import absorb_mock_exams
from tallybook.usecases.ask_to_read import ask_to_read
from tallybook.usecases.import_records import Imported, import_records
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.pull_mock_exams import with_prerequisites
from tallybook.usecases.pull_prerequisites import pull_prerequisites


@dataclass(slots=True, kw_only=True)
class MockExamsImported(Imported):
    """`sessions` counts those that can take place by mock type; the others are `not_stored`."""

    sessions: dict[str, int] = field(default_factory=dict)
    seats: int = 0


async def import_mock_exams(
    mirror: Mirror,
    *,
    limit: int | None = None,
    dry_run: bool = False,
    max_s: float | None = None,
    on_progress: Callable[[MockExamsImported], None] = lambda _: None,
) -> MockExamsImported:
    """Merges all mock exams. Repeating it changes nothing; a dry run writes nothing."""
    result = MockExamsImported()
    discussions: list[str] = []

    async def take(records: Sequence[Record]) -> None:
        for record in records:
            exam = parse_mock_exam(record, mirror.catalog, default_zone=mirror.time_zone)
            if exam.problems:
                result.not_stored += dry_run
            elif exam.mock_type is not None:
                result.sessions[exam.mock_type] = result.sessions.get(exam.mock_type, 0) + 1
                result.seats += exam.capacity or 0
        if dry_run:
            return
        taken = await absorb_mock_exams(mirror, records, importing=True)
        result.not_stored += len(taken.errors)
        if taken.again:
            await ask_to_read(mirror.db, MirroredType.MOCK_EXAM, taken.again)
        # What a session requires may come on a later page: those are read again when all are there.
        found = with_prerequisites(records)
        if found and await pull_prerequisites(mirror, found, kind=CallKind.IMPORT, deadline_s=120.0):
            discussions.extend(found)

    await import_records(
        mirror,
        MirroredType.MOCK_EXAM,
        result,
        take,
        properties=MOCK_EXAM_PROPERTIES,
        limit=limit,
        dry_run=dry_run,
        max_s=max_s,
        on_progress=lambda: on_progress(result),
    )
    await pull_prerequisites(mirror, discussions, kind=CallKind.IMPORT, deadline_s=120.0)
    return result
