"""Creates one session that can be booked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime

import msgspec

from tallybook.domain.errors import ValidationError
from tallybook.domain.mock_exams import Opening, Session
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database


async def create_mock_exam(
    db: Database,
    *,
    session: Session,
    actor: str,
    opening: Opening = Opening.ACTIVE,
    opens_at: datetime | None = None,
    prerequisites: Sequence[str] = (),
) -> Answer:
    """Stores a session that `parse_session` has checked; a scheduled one opens by itself at `opens_at`.

    `prerequisites` are ids of sessions that end before this one starts. Raises ExamNotFound, ValidationError,
    InvalidMockType.
    """
    if (opening is Opening.SCHEDULED) != (opens_at is not None):
        raise ValidationError(
            "A scheduled session needs the time it opens, and only that one.",
            field="opens_at",
            problem="goes with scheduled sessions",
        )
    if opens_at is not None and opens_at >= session.starts_at:
        raise ValidationError(
            "A session opens before it starts.", field="opens_at", problem="is not before the start"
        )
    stored = dataclasses.asdict(session) | {"activation": opening.value, "opens_at": opens_at}
    return await db.answer(
        "create_mock_exam",
        {
            "session": msgspec.json.encode(stored).decode(),
            "prerequisites": list(prerequisites),
            "actor": actor,
        },
    )
