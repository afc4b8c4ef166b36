"""Makes a backup recognisable as an older state, once it is complete."""

from __future__ import annotations

import asyncio
import time

from tallybook.domain.errors import CrmBusy
from tallybook.usecases.guard_mirror import demand_same_portal, raise_epoch
from tallybook.usecases.mirror import Mirror

_AT_MOST_S = 45.0


async def mark_backup(mirror: Mirror) -> bool:
    """Raises the epoch above the one in the backup; false when HubSpot is never written from here.

    A raise that somebody else began may have begun before the backup did, so it is waited for and another one
    follows. Raises SetupError, CrmBusy, CrmUnavailable.
    """
    row = await mirror.db.fetch_one("is_marked")
    assert row is not None
    if mirror.observe or not row[0]:
        return False
    await demand_same_portal(mirror)
    ends_at = time.monotonic() + _AT_MOST_S
    while not await raise_epoch(mirror):
        if time.monotonic() >= ends_at:
            raise CrmBusy
        await asyncio.sleep(1.0)
    return True
