"""Lets dead letters be tried again."""

from __future__ import annotations

import msgspec

from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.list_dead_letters import LetterType

_ALL_AT_ONCE = 1000


class _Retried(msgspec.Struct):
    retried: int


async def retry_dead_letter(db: Database, *, letter_type: LetterType | None, letter_id: str) -> Answer:
    """Tries one again; `already` when it waits for its turn anyway. Raises NotFound."""
    return await db.answer("retry_dead", {"type": letter_type and letter_type.value, "id": letter_id})


async def retry_all_dead_letters(db: Database) -> int:
    """Tries all again, and says how many those are."""
    retried = 0
    while True:
        answer = await db.answer("retry_dead", {"type": None, "id": None})
        found = msgspec.json.decode(answer.data, type=_Retried).retried
        retried += found
        if found < _ALL_AT_ONCE:
            return retried
