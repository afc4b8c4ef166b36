"""`tallybook sync rebind`: this database and the portal of the token belong together from now on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tallybook.cli.session import actor, with_parts
from tallybook.domain.errors import Observing

if TYPE_CHECKING:
    from tallybook.usecases.rebind_mirror import Bindings
    from tallybook.wiring import Parts


def rebind(*, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Bind this database to the HubSpot portal of the token, whatever either belonged to before.

    Pushing stays on hold until `tallybook sync reconcile --after-restore` has compared the two.
    """
    from tallybook.usecases.rebind_mirror import read_bindings, rebind_mirror

    async def work(parts: Parts) -> None:
        parts.settings.needed("HS_PRIVATE_APP_TOKEN")
        if parts.settings.observes:
            raise Observing(setting="TALLYBOOK_MODE=observe")
        found = await read_bindings(parts.mirror)
        _show(found)
        if not found.is_needed:
            print("They belong together already.")
            return
        if not yes and not typer.confirm("Bind them to each other?", err=True):
            raise typer.Abort
        forgotten = await rebind_mirror(parts.mirror, actor=actor())
        if forgotten:
            print(f"{forgotten} records of the old portal were forgotten.")
        print("Bound. Nothing is pushed until you run: tallybook sync reconcile --after-restore")

    with_parts(work)


def _show(found: Bindings) -> None:
    marker = found.portal.marker
    for name, ours, theirs in (
        ("portal", found.portal_id or "none yet", found.portal.account.portal_id),
        ("database", found.database_id, marker.database_id if marker else "none yet"),
    ):
        print(f"{name:<8}  here: {ours}  HubSpot: {theirs}", file=sys.stderr)
    if found.changes_portal:
        print(
            "HubSpot's ids of the old portal will be forgotten here; balances and bookings stay as they are.",
            file=sys.stderr,
        )
