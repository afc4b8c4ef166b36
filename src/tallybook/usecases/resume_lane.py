"""Lets a lane that has paused go on at once."""

from __future__ import annotations

from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database


async def resume_lane(db: Database, *, lane: str, actor: str) -> Answer:
    """Ends the pause; `already` when there is none. Raises NotFound for an unknown lane.

    What made it pause pauses it again if it is still there.
    """
    return await db.answer("resume_lane", {"lane": lane, "actor": actor})
