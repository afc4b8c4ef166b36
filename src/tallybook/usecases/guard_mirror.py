"""Keeps a database and a portal together: no other portal, no copy of the database, none from a backup."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from tallybook.domain.errors import CrmBusy, CrmUnavailable, SetupError, TallybookError
from tallybook.domain.portal_marker import PortalMarker
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.connection import CONTACTS
from tallybook.hubspot.fields import STAMP_PROPERTY
from tallybook.hubspot.records import Account
from tallybook.usecases.mirror import Mirror

_DEADLINE_S = 20.0
_KNOWN_FOR_S = 60.0
_REFUSED_FOR_S = 10.0
_PATIENCE_S = 1.0
_HELD = {
    "restored": "This database was restored from a backup: HubSpot knows writes of ours that it does not.",
    "rebound": "This database was bound to this portal anew, and the two were not compared yet.",
}
_RECONCILE = "Run: tallybook sync reconcile --after-restore"
_REBIND = "Should they belong together from now on, run: tallybook sync rebind"


@dataclass(frozen=True, slots=True)
class Portal:
    """What the token opens: the account, whether our property is there, and the marker in its description."""

    account: Account
    can_be_marked: bool
    marker: PortalMarker | None


async def demand_same_portal(mirror: Mirror) -> None:
    """Nothing when this database and this portal belong together; they are bound at first contact.

    Where HubSpot is ahead, this database was restored from a backup and the mirror is put on hold. Else the
    marker is written when it is due. Raises SetupError naming both sides or the hold, CrmBusy,
    CrmUnavailable.
    """
    portal = await read_portal(mirror)
    is_due = await _compare(mirror, portal)
    if is_due and portal.can_be_marked and not mirror.observe:
        await raise_epoch(mirror)


async def demand_same_portal_to_read(mirror: Mirror) -> None:
    """The same for somebody who waits: nothing is written to HubSpot, and calls are made as for a miss.

    Raises DatabaseUnavailable before HubSpot is called, whose few calls are then needed for the answers.
    """
    await mirror.db.fetch_one("show_binding")
    await _compare(mirror, await read_portal(mirror, kind=CallKind.MISS))


class PortalGuard:
    """Knows for a minute that database and portal belong together: whoever asks meanwhile waits for nothing.

    `look` asks both, as `demand_same_portal` does. `is_known`: somebody has just looked.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[None]],
        *,
        is_known: bool = False,
        refused_for_s: float = _REFUSED_FOR_S,
    ) -> None:
        self._look = look
        self._is_known = is_known
        self._known_until = time.monotonic() + _KNOWN_FOR_S if is_known else -math.inf
        self._refused_for_s = refused_for_s
        self._refused: SetupError | None = None
        self._refused_until = -math.inf
        self._looking: asyncio.Task[None] | None = None
        self._looking_since = -math.inf

    def refuse(self) -> None:
        """Asks nobody. Raises SetupError when the two were found not to belong together a moment ago."""
        if self._refused is not None and time.monotonic() < self._refused_until:
            raise self._refused.with_traceback(None)

    async def demand(self) -> None:
        """Raises SetupError where they do not; what may pass only while it has never been known."""
        self.refuse()
        if time.monotonic() < self._known_until:
            return
        looking = self._looking
        if looking is None:
            looking = self._looking = asyncio.create_task(self._look_once())
            self._looking_since = time.monotonic()
            looking.add_done_callback(self._looked)
        # All who come meanwhile hear the same; who gives up takes it from nobody. Where it was known a minute
        # ago, nobody waits longer for a portal in trouble than people wait for an answer.
        wait_s = max(0.0, self._looking_since + _PATIENCE_S - time.monotonic()) if self._is_known else None
        done, _ = await asyncio.wait((looking,), timeout=wait_s)
        for each in done:
            each.result()

    async def look_ahead(self) -> None:
        """Looks before anybody has to know, for a second; what is wrong is told to whoever asks later."""
        with suppress(TallybookError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await self.demand()

    async def _look_once(self) -> None:
        try:
            await self._look()
        except SetupError as error:
            self._is_known = False
            # A token that HubSpot refuses is refused everywhere, and may be put right at any moment.
            if "status" not in error.details:
                self._refused, self._refused_until = error, time.monotonic() + self._refused_for_s
            raise
        except (CrmBusy, CrmUnavailable):
            if not self._is_known:
                raise
        self._is_known = True
        self._known_until = time.monotonic() + _KNOWN_FOR_S

    def _looked(self, looking: asyncio.Task[None]) -> None:
        self._looking = None
        # Nobody may be left to hear of a failure.
        _ = looking.cancelled() or looking.exception()


async def _compare(mirror: Mirror, portal: Portal) -> bool:
    """Whether the marker is due to be written. Raises SetupError as `demand_same_portal`."""
    # Who only observes is no part of the pair: another database may be the one that writes there.
    marker = None if mirror.observe else portal.marker
    row = await mirror.db.fetch_one(
        "check_portal",
        {
            "portal_id": portal.account.portal_id,
            "time_zone": portal.account.time_zone,
            "database_id": marker.database_id if marker else None,
            "epoch": marker.epoch if marker else None,
        },
    )
    assert row is not None
    problem, portal_id, database_id, hold, is_due = row
    if problem == "portal":
        raise SetupError(
            f"This database belongs to HubSpot portal {portal_id}; the token opens portal"
            f" {portal.account.portal_id}.",
            hint=f"Set HS_PRIVATE_APP_TOKEN to a token of portal {portal_id}. {_REBIND}",
            portal_id=portal_id,
            other_portal_id=portal.account.portal_id,
        )
    if problem == "database":
        assert marker is not None
        raise SetupError(
            f"HubSpot portal {portal.account.portal_id} belongs to database {marker.database_id}; this is"
            f" {database_id}.",
            hint=f"Use TALLYBOOK_MODE=observe to look only. {_REBIND}",
            database_id=str(database_id),
            other_database_id=str(marker.database_id),
        )
    if hold is not None:
        raise SetupError(_HELD.get(hold, f"The mirror is on hold: {hold}."), hint=_RECONCILE, hold=hold)
    return bool(is_due)


async def raise_epoch(mirror: Mirror) -> bool:
    """Tells HubSpot that this database went on: from here on, an older state of it is recognised as one.

    The database knows the new number before HubSpot does, so that a crash in between is never taken for a
    restored backup. False, and nothing happens, while somebody else does the same.
    """
    row = await mirror.db.fetch_one("begin_epoch")
    if row is None or row[0] is None:
        return False
    named = await mirror.db.fetch_one("database_id")
    assert named is not None
    await mirror.client.describe_property(
        CONTACTS,
        STAMP_PROPERTY,
        PortalMarker(named[0], row[0]).text,
        kind=CallKind.PUSH,
        deadline_s=_DEADLINE_S,
    )
    await mirror.db.fetch_all("confirm_epoch", {"epoch": row[0]})
    return True


async def read_portal(mirror: Mirror, *, kind: CallKind = CallKind.PUSH) -> Portal:
    """What is at the other end, asked in two calls at once. Raises CrmBusy, CrmUnavailable, SetupError."""
    client = mirror.client
    finding = asyncio.create_task(
        client.find_property(CONTACTS, STAMP_PROPERTY, kind=kind, deadline_s=_DEADLINE_S)
    )
    try:
        account = await client.account_details(kind=kind, deadline_s=_DEADLINE_S)
        found = await finding
    finally:
        finding.cancel()
        await asyncio.gather(finding, return_exceptions=True)
    return Portal(
        account=account,
        can_be_marked=found is not None,
        marker=PortalMarker.parse(found.description) if found else None,
    )
