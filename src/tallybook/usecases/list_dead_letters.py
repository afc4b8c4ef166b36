"""Lists what HubSpot refuses to take, or what could not be read from it, and waits for a person."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from tallybook.postgres.pool import Database


class LetterType(StrEnum):
    """What a dead letter is about: an object of ours that was to be written, or a hint to read a record."""

    CONTACT = "contact"
    MOCK_EXAM = "mock_exam"
    BOOKING = "booking"
    INBOX = "inbox"


async def list_dead_letters(
    db: Database, *, letter_type: LetterType | None = None, page: int = 1, limit: int = 50
) -> dict[str, Any]:
    """One page of `dead_letters`, the oldest first, with HubSpot's own words, `page` and the `total`."""
    row = await db.fetch_one(
        "list_dead_letters",
        {"type": letter_type and letter_type.value, "page": page, "limit": limit},
    )
    assert row is not None
    return msgspec.json.decode(row[0], type=dict[str, Any])
