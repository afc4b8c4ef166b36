"""The reason that staff give for what they decide; it is kept in the audit log."""

from __future__ import annotations

from tallybook.domain.errors import ValidationError

LONGEST_REASON = 500


def checked_reason(text: str) -> str:
    """The reason without blanks around it. Raises ValidationError when it says nothing, or too much."""
    reason = text.strip()
    if not reason or len(reason) > LONGEST_REASON:
        problem = "is required" if not reason else f"must have at most {LONGEST_REASON} characters"
        raise ValidationError(f"The reason {problem}.", field="reason", problem=problem)
    return reason
