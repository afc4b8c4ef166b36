"""Keeps a database and a portal together: no other portal, no copy of the database, none from a backup."""

from __future__ import annotations

from dataclasses import dataclass

from tallybook.domain.errors import SetupError
from tallybook.domain.portal_marker import PortalMarker
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.connection import CONTACTS
from tallybook.hubspot.fields import STAMP_PROPERTY
from tallybook.hubspot.records import Account
from tallybook.usecases.mirror import Mirror

_DEADLINE_S = 20.0
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
    if is_due and portal.can_be_marked and not mirror.observe:
        await raise_epoch(mirror)


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


async def read_portal(mirror: Mirror) -> Portal:
    """What is at the other end. Raises CrmBusy, CrmUnavailable, SetupError."""
    client = mirror.client
    account = await client.account_details(kind=CallKind.PUSH, deadline_s=_DEADLINE_S)
    found = await client.find_property(CONTACTS, STAMP_PROPERTY, kind=CallKind.PUSH, deadline_s=_DEADLINE_S)
    return Portal(
        account=account,
        can_be_marked=found is not None,
        marker=PortalMarker.parse(found.description) if found else None,
    )
