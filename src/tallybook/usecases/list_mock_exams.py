"""Sessions as anybody may see them: what is open, and how many seats are left."""

from __future__ import annotations

from tallybook.domain.callers import Caller
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.ask import limit


async def list_mock_exams(db: Database, *, caller: Caller, mock_type: str, include_full: bool) -> Answer:
    """Open sessions of a type, soonest first. Raises InvalidMockType, RateLimited."""
    return await db.answer(
        "list_mock_exams", {"mock_type": mock_type, "include_full": include_full, **limit(caller)}
    )


async def show_capacity(db: Database, *, caller: Caller, mock_exam_id: str) -> Answer:
    """The seats of one session. Raises ExamNotFound, RateLimited."""
    return await db.answer("show_capacity", {"mock_exam": mock_exam_id, **limit(caller)})
