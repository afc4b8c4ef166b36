"""Settles a conflict between Tallybook and HubSpot as a person decided."""

from __future__ import annotations

from enum import StrEnum

from tallybook.domain.errors import ValidationError
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.reasons import checked_reason

LONGEST_VALUE = 500


class Choice(StrEnum):
    """Which value holds from now on, on both sides."""

    OURS = "ours"
    THEIRS = "theirs"
    VALUE = "value"
    """A third one, named by whoever decides."""
    DISMISS = "dismiss"
    """Nothing changes; the conflict was only to be seen."""


async def resolve_conflict(
    db: Database, *, conflict_id: int, choice: Choice, value: str | None, reason: str, actor: str
) -> Answer:
    """The conflict as it stands afterwards; `already` when it was resolved in this very way before.

    Raises NotFound, ConfirmationStale when somebody decided otherwise meanwhile, ValidationError, and what
    the change itself can be refused with.
    """
    if (choice is Choice.VALUE) != (value is not None):
        problem = "is required" if choice is Choice.VALUE else "goes only with the choice 'value'"
        raise ValidationError(f"The value {problem}.", field="value", problem=problem)
    if value is not None and len(value) > LONGEST_VALUE:
        problem = f"must have at most {LONGEST_VALUE} characters"
        raise ValidationError(f"The value {problem}.", field="value", problem=problem)
    return await db.answer(
        "resolve_conflict",
        {
            "id": conflict_id,
            "choice": choice.value,
            "value": value,
            "reason": checked_reason(reason),
            "actor": actor,
        },
    )
