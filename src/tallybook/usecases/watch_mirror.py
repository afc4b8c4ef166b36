"""Raises an alert for what has passed its limit in the mirror, and clears it when that is over."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import msgspec

from tallybook.postgres.pool import Database


@dataclass(frozen=True, slots=True)
class AlertLimits:
    """From how many seconds on something is worth an alert.

    `lag_s`: the oldest change that HubSpot has not been told. `inbox_s`: the oldest hint that has not been
    followed although it was due, and how long ago HubSpot was last searched to the end. `throttled_s`: how
    long ago HubSpot last answered 429. Dead letters, conflicts, paused lanes and a stop of all pushing are
    always worth one.
    """

    lag_s: float = 300.0
    inbox_s: float = 300.0
    throttled_s: float = 600.0


async def watch_mirror(db: Database, limits: AlertLimits) -> None:
    """Compares the mirror with the limits; alerts are sent by `jobs.send_alerts`."""
    await db.fetch_all("watch_mirror", {"limits": msgspec.json.encode(asdict(limits)).decode()})
