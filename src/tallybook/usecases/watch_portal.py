"""Looks whether the mirror may work; when it may not and only a person can change that, they are alerted."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from tallybook.domain.errors import SetupError, TallybookError
from tallybook.postgres.pool import Database
from tallybook.usecases.guard_mirror import demand_same_portal
from tallybook.usecases.mirror import Mirror

_KIND = "mirror_stopped"


async def watch_portal(mirror: Mirror) -> None:
    """Nothing when database and portal belong together and the token opens it, as `demand_same_portal`.

    Raises SetupError, with an alert `mirror_stopped` that lasts until this succeeds; CrmBusy, CrmUnavailable,
    DatabaseUnavailable.
    """
    try:
        await demand_same_portal(mirror)
    except SetupError as error:
        # Of a hold the alert `push_held` tells already.
        if "hold" not in error.details:
            with suppress(TallybookError):
                await _raise(mirror.db, error)
        raise
    await mirror.db.fetch_all("clear_alert", {"kind": _KIND, "subject": ""})


async def _raise(db: Database, error: SetupError) -> None:
    status = error.details.get("status")
    details = {"reason": "another_portal" if status is None else f"status_{status}"}
    params = {"kind": _KIND, "subject": "", "details": msgspec.json.encode(details).decode()}
    await db.fetch_all("raise_alert", params)
