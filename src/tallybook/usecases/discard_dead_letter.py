"""Gives a dead letter up: HubSpot keeps what it shows until the object changes again."""

from __future__ import annotations

from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.list_dead_letters import LetterType
from tallybook.usecases.reasons import checked_reason


async def discard_dead_letter(
    db: Database, *, letter_type: LetterType | None, letter_id: str, reason: str, actor: str
) -> Answer:
    """Removes it; reason and HubSpot's words stay in the audit log. Raises NotFound, ValidationError."""
    return await db.answer(
        "discard_dead",
        {
            "type": letter_type and letter_type.value,
            "id": letter_id,
            "reason": checked_reason(reason),
            "actor": actor,
        },
    )
