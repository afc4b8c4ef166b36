"""Binds a database to the portal its token opens, after a person has seen what belonged to what before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from tallybook.usecases.guard_mirror import Portal, raise_epoch, read_portal
from tallybook.usecases.mirror import Mirror

_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Bindings:
    """Which portal this database belongs to (None: none yet), and which database that portal says it has."""

    database_id: UUID
    portal_id: int | None
    portal: Portal
    is_forgetting: bool
    """A rebind was interrupted while the old portal's records were being forgotten."""

    @property
    def changes_portal(self) -> bool:
        """Whether this database belonged to another portal, whose records it knows."""
        return self.portal_id not in (None, self.portal.account.portal_id)

    @property
    def is_needed(self) -> bool:
        """Whether the two do not belong together yet."""
        return self.changes_portal or self.changes_database or self.is_forgetting

    @property
    def changes_database(self) -> bool:
        """Whether the portal belonged to another database."""
        marker = self.portal.marker
        return marker is not None and marker.database_id != self.database_id


async def read_bindings(mirror: Mirror) -> Bindings:
    """Both sides as they are now; changes nothing. Raises CrmBusy, CrmUnavailable, SetupError."""
    portal = await read_portal(mirror)
    row = await mirror.db.fetch_one("show_binding")
    assert row is not None
    database_id, portal_id, is_forgetting = row
    return Bindings(database_id, portal_id, portal, is_forgetting)


async def rebind_mirror(
    mirror: Mirror, *, actor: str, on_progress: Callable[[int], None] = lambda _: None
) -> int:
    """Binds the two, and puts pushing on hold until `reconcile_after_restore` has compared them.

    Bound to another portal, the database forgets the old one's records: ids, bases and stamps, never a
    balance or a booking. Gives how many; interrupted, it goes on when it is called again. A process that
    still uses the old portal's token is refused from the first moment on.
    """
    portal = await read_portal(mirror)
    await mirror.db.fetch_all(
        "begin_rebind",
        {
            "portal_id": portal.account.portal_id,
            "time_zone": portal.account.time_zone,
            "epoch": portal.marker.epoch if portal.marker else 0,
            "actor": actor,
        },
    )
    forgotten = await forget_records(mirror, on_progress=on_progress)
    if portal.can_be_marked:
        await raise_epoch(mirror)
    return forgotten


async def forget_records(mirror: Mirror, *, on_progress: Callable[[int], None] = lambda _: None) -> int:
    """Forgets what a rebind left to be forgotten; gives how many objects."""
    forgotten = 0
    while True:
        row = await mirror.db.fetch_one("forget_records", {"limit": _AT_ONCE})
        assert row is not None
        if row[0] == 0:
            return forgotten
        forgotten += row[0]
        on_progress(forgotten)
