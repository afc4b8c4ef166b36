"""The words of the mirror: what is kept in step with HubSpot, and how an answer of HubSpot's was taken."""

from __future__ import annotations

from enum import StrEnum


class MirroredType(StrEnum):
    """A kind of object that exists on both sides; also the name of its lane."""

    CONTACT = "contact"
    MOCK_EXAM = "mock_exam"
    BOOKING = "booking"


class Outcome(StrEnum):
    """What became of one of HubSpot's answers when it was absorbed."""

    ABSORBED = "absorbed"
    OLDER = "older"
    """An answer at least as new was absorbed before; nothing was changed."""
    NEED_HISTORY = "need_history"
    """Own writes are unread: only the property histories tell whose numbers these are."""
    AGAIN = "again"
    """The histories are not up to the values yet: read again a little later."""
    AHEAD = "ahead"
    """HubSpot knows a write of ours that this database does not: it was restored from a backup."""
    NOT_STORED = "not_stored"
    """It cannot be one of ours, or not now; a conflict or a note says why."""
