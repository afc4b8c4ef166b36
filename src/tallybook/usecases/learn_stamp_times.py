"""Learns whether a portal's histories give all that one request wrote one time, and tells who reads them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tallybook.hubspot.histories import ONE_REQUEST, SAME_TIME
from tallybook.postgres.pool import Database

_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Learnt:
    """What is known of the portal this database is bound to. `is_new`: nobody knew that times differ."""

    is_new: bool


async def learn_stamp_times(db: Database, *, portal_id: int, apart: timedelta) -> Learnt | None:
    """Remembers that times differ on this portal; None when this database is not bound to it.

    From now on every process takes histories so, without a restart; bound to another portal it is forgotten.
    """
    row = await db.fetch_one(
        "learn_stamps_apart", {"portal_id": portal_id, "apart_ms": max(1, round(apart / _MILLISECOND))}
    )
    return None if row is None else Learnt(is_new=row[0] is None)


async def stamps_apart(db: Database) -> timedelta | None:
    """How far stamp and number of one request were found apart on this portal; None: they never were."""
    row = await db.fetch_one("stamps_apart")
    return None if row is None or row[0] is None else row[0] * _MILLISECOND


async def own_within(db: Database) -> timedelta:
    """How far stamp and entry may lie apart to be one request of ours, as it is known at this moment.

    Asked whenever histories have been read: what `doctor` finds holds for all processes at once.
    """
    return SAME_TIME if await stamps_apart(db) is None else ONE_REQUEST
