"""`tallybook import`: all students, mock exams and bookings of a HubSpot portal."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallybook.cli.session import AsJson, DryRun, print_fields, print_json, with_parts
from tallybook.domain.errors import SetupError

if TYPE_CHECKING:
    from tallybook.jobs.lease import JobResult
    from tallybook.usecases.import_contacts import ImportResult
    from tallybook.usecases.import_portal import PortalImported
    from tallybook.usecases.import_records import Imported
    from tallybook.wiring import Parts

    Show = Callable[[str, ImportResult | Imported], None]

_A_LINE_EVERY_S = 5.0


class Prefer(StrEnum):
    """The words of the option; the use case knows what they mean."""

    DATABASE = "database"
    HUBSPOT = "hubspot"


def import_everything(
    *,
    dry_run: DryRun = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many of each kind.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=100, help="Students per transaction.")] = 100,
    from_old_schema: Annotated[
        str | None,
        typer.Option(
            "--from-old-schema",
            metavar="SCHEMA",
            help="Take over the tables of the system before, e.g. hubspot_sync, too.",
        ),
    ] = None,
    old_database_url: Annotated[
        str | None, typer.Option(help="Where those tables are; default: the same database.")
    ] = None,
    prefer: Annotated[
        Prefer | None, typer.Option(help="Whose numbers hold where those tables and HubSpot differ.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring in students, mock exams and bookings from HubSpot.

    Repeating it changes nothing; after a stop it goes on.
    """
    if from_old_schema is not None:
        from tallybook.cli.taking_over import take_over

        take_over(
            from_old_schema,
            old_database_url=old_database_url,
            prefer=prefer,
            dry_run=dry_run,
            as_json=as_json,
        )
        return
    from tallybook.usecases.import_portal import import_portal

    found: list[PortalImported] = []

    async def work(parts: Parts) -> None:
        if not dry_run:
            await bring_in(parts, limit=limit, batch_size=batch_size, quiet=as_json, found=found)
            return
        parts.settings.needed("HS_PRIVATE_APP_TOKEN")
        with progress(quiet=as_json) as show:
            found.append(
                await import_portal(
                    parts.mirror, limit=limit, batch_size=batch_size, dry_run=True, on_progress=show
                )
            )

    with_parts(work)
    _show(found[0], dry_run=dry_run, as_json=as_json)


async def bring_in(
    parts: Parts,
    *,
    limit: int | None = None,
    batch_size: int = 100,
    quiet: bool,
    found: list[PortalImported] | None = None,
) -> JobResult:
    """Imports everything, alone, and shows how far it is; `found` gets the result. Raises SetupError."""
    from tallybook.jobs import import_students
    from tallybook.jobs.lease import JobRunningError, under_lease
    from tallybook.usecases.import_portal import import_portal

    parts.settings.needed("HS_PRIVATE_APP_TOKEN")

    async def once() -> JobResult:
        with progress(quiet=quiet) as show:
            result = await import_portal(parts.mirror, limit=limit, batch_size=batch_size, on_progress=show)
        if found is not None:
            found.append(result)
        return import_students.job_result(result)

    try:
        return await under_lease(parts.db, import_students.JOB, once)
    except JobRunningError as error:
        raise SetupError(
            "another import is running", hint="Wait until it ends, or stop it; this one can then go on."
        ) from error


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Show]:
    """Shows how far an import is: a bar on a terminal, else a line now and then; on standard error."""
    if quiet:
        yield lambda _, __: None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(of: str, result: ImportResult | Imported) -> None:
            if of not in tasks:
                tasks[of] = bar.add_task(of, total=None)
            bar.update(tasks[of], completed=result.read, total=result.total)

        yield show


def _lines() -> Show:
    told_at = time.monotonic()

    def show(of: str, result: ImportResult | Imported) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _A_LINE_EVERY_S:
            told_at = time.monotonic()
            of_all = f" of {result.total}" if result.total else ""
            print(f"{result.read}{of_all} {of} read", file=sys.stderr)

    return show


def _show(result: PortalImported, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        shown = dataclasses.asdict(result)
        print_json({"dry_run": dry_run, **shown.pop("contacts"), **shown, "complete": result.complete})
        return
    contacts = result.contacts
    verb = "would be imported" if dry_run else "imported"
    rate = contacts.read / contacts.duration_s if contacts.duration_s else 0
    print(f"{contacts.students} students {verb} in {contacts.duration_s:.1f} s ({rate:.0f} contacts/s).")
    if result.skipped or contacts.resumed:
        print("It went on where the last import had stopped; the figures are of this part.")
    print_fields({f"{name}:": value for name, value in _figures(result).items()})


def _figures(result: PortalImported) -> dict[str, Any]:
    contacts, exams, bookings = result.contacts, result.mock_exams, result.bookings
    shown: dict[str, Any] = {
        "Contacts read": contacts.read,
        "Contacts with any credits": _share(contacts.with_any_credits, contacts.students),
    }
    for name in sorted(contacts.with_credits):
        number = _share(contacts.with_credits[name], contacts.students)
        shown[f"Contacts with {name}"] = f"{number}, {contacts.credits[name]} credits in all"
    shown["Numbers that are none"] = contacts.unreadable or None
    shown["Not stored (another contact has the e-mail)"] = contacts.not_stored or None
    shown["Mock exams read"] = f"{exams.read}, {exams.seats} seats in all"
    for name in sorted(exams.sessions):
        shown[f"Mock exams of {name}"] = exams.sessions[name]
    shown["Mock exams not stored (see `tallybook sync conflicts`)"] = exams.not_stored or None
    shown["Bookings read"] = bookings.read
    for status in sorted(bookings.statuses):
        shown[f"Bookings {status.lower()}"] = bookings.statuses[status]
    shown["Bookings paid with a credit"] = bookings.paid
    shown["Bookings not stored (see `tallybook sync conflicts`)"] = bookings.not_stored or None
    return shown


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole if whole else 0:.1f} %)"
