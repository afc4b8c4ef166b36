"""`tallybook sync reconcile --after-restore`: a restored database is compared with HubSpot and goes on."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import TYPE_CHECKING

import typer

from tallybook.cli.session import print_fields, print_json, with_parts
from tallybook.domain.errors import Observing, SetupError

if TYPE_CHECKING:
    from tallybook.jobs.lease import JobResult
    from tallybook.usecases.reconcile_after_restore import Restored
    from tallybook.wiring import Parts

_JOB = "reconcile"
_A_LINE_EVERY_S = 5.0


def reconcile_restored(*, as_json: bool = False) -> None:
    """Bring bookings and numbers of the forgotten time back from HubSpot; exit code 1 when some are left."""
    from tallybook.jobs.lease import JobResult, JobRunningError, under_lease
    from tallybook.usecases.reconcile_after_restore import reconcile_after_restore

    found: list[Restored] = []

    async def work(parts: Parts) -> None:
        parts.settings.needed("HS_PRIVATE_APP_TOKEN")
        if parts.settings.observes:
            raise Observing(setting="TALLYBOOK_MODE=observe")

        async def compare() -> JobResult:
            found.append(await reconcile_after_restore(parts.mirror, on_progress=_Lines()))
            return JobResult({"contacts": found[0].contacts_restored}, done=found[0].done)

        try:
            await under_lease(parts.db, _JOB, compare)
        except JobRunningError as error:
            raise SetupError("another reconcile is running", hint="Wait until it ends.") from error

    with_parts(work)
    _show(found[0], as_json=as_json)
    if not found[0].done:
        raise typer.Exit(1)


class _Lines:
    """How far it is, a line now and then, on standard error."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def __call__(self, so_far: Restored) -> None:
        if time.monotonic() - self._told_at >= _A_LINE_EVERY_S:
            self._told_at = time.monotonic()
            read = f"{so_far.mock_exams} mock exams, {so_far.contacts} contacts, {so_far.bookings} bookings"
            print(f"{read} compared; {so_far.contacts_restored} contacts restored", file=sys.stderr)


def _show(found: Restored, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(found))
    elif not found.needed:
        print("The mirror is not on hold: there is nothing to compare.")
    else:
        print_fields(
            {
                "mock exams": found.mock_exams,
                "contacts": found.contacts,
                "bookings": found.bookings,
                "decisions repeated": found.decisions_repeated,
                "contacts restored": found.contacts_restored,
                "not taken": len(found.errors) or None,
                "histories not there yet": len(found.left) or None,
            }
        )
        print(
            "The hold is over; what needs a person: tallybook sync conflicts"
            if found.done
            else "The hold stays. Run it again in a few minutes."
        )
