"""Hands each alert that nobody was told about to one sender at a time, and notes what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from tallybook.postgres.pool import Database

# Longer than one attempt to send, so that two never send the same.
_LEASE_S = 60.0


@dataclass(frozen=True, slots=True)
class ClaimedAlert:
    """One state of an alert to be told; `details` is JSON. `attempts` failed before."""

    kind: str
    subject: str
    state: Literal["opened", "cleared"]
    raised_at: datetime
    cleared_at: datetime | None
    details: bytes
    attempts: int
    token: UUID


async def claim_alert(db: Database) -> ClaimedAlert | None:
    """The oldest that is due, for a minute this caller's; None when there is none."""
    row = await db.fetch_one("claim_alerts", {"limit": 1, "lease_s": _LEASE_S})
    return None if row is None else ClaimedAlert(*row)


async def settle_alert(
    db: Database, alert: ClaimedAlert, *, problem: str | None = None, again_s: float = 0.0
) -> None:
    """Notes that it arrived, or with a `problem` that it did not and is due again in `again_s` seconds."""
    await db.fetch_all(
        "settle_alert",
        {
            "kind": alert.kind,
            "subject": alert.subject,
            "state": alert.state,
            "raised_at": alert.raised_at,
            "token": alert.token,
            "error": problem,
            "again_s": again_s,
        },
    )
