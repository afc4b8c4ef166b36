"""`tallybook import`: all students of a HubSpot portal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallybook.cli.session import AsJson, DryRun, print_fields, print_json, with_parts
from tallybook.domain.errors import SetupError

if TYPE_CHECKING:
    from tallybook.jobs.lease import JobResult
    from tallybook.usecases.import_contacts import ImportResult
    from tallybook.wiring import Parts

_A_LINE_EVERY_S = 5.0


def import_everything(
    *,
    dry_run: DryRun = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many students.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=100, help="Students per transaction.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Bring in all students from HubSpot. Repeating it changes nothing; after a stop it goes on."""
    from tallybook.jobs import import_students
    from tallybook.jobs.lease import JobResult, JobRunningError, under_lease
    from tallybook.usecases.import_contacts import import_contacts

    found: list[ImportResult] = []

    async def work(parts: Parts) -> None:
        parts.settings.needed("HS_PRIVATE_APP_TOKEN")

        async def bring_in() -> JobResult:
            with progress(quiet=as_json) as show:
                result = await import_contacts(
                    parts.db,
                    parts.hubspot,
                    parts.catalog,
                    limit=limit,
                    batch_size=batch_size,
                    dry_run=dry_run,
                    on_progress=show,
                )
            found.append(result)
            return JobResult({"students": result.students}, done=result.complete)

        if dry_run:
            await bring_in()
            return
        try:
            await under_lease(parts.db, import_students.JOB, bring_in)
        except JobRunningError as error:
            raise SetupError(
                "another import is running", hint="Wait until it ends, or stop it; this one can then go on."
            ) from error

    with_parts(work)
    _show(found[0], dry_run=dry_run, as_json=as_json)


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Callable[[ImportResult], None]]:
    """Shows how far an import is: a bar on a terminal, else a line now and then; on standard error."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Callable[[ImportResult], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("contacts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("contacts", total=None)

        def show(result: ImportResult) -> None:
            bar.update(task, completed=result.read, total=result.total)

        yield show


def _lines() -> Callable[[ImportResult], None]:
    told_at = time.monotonic()

    def show(result: ImportResult) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _A_LINE_EVERY_S:
            told_at = time.monotonic()
            of_all = f" of {result.total}" if result.total else ""
            print(f"{result.read}{of_all} contacts read, {result.students} students", file=sys.stderr)

    return show


def _show(result: ImportResult, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"dry_run": dry_run, **_as_dict(result)})
        return
    verb = "would be imported" if dry_run else "imported"
    rate = result.read / result.duration_s if result.duration_s else 0
    print(f"{result.students} students {verb} in {result.duration_s:.1f} s ({rate:.0f} contacts/s).")
    if result.resumed:
        print("It went on where the last import had stopped; the figures are of this part.")
    shown: dict[str, Any] = {
        "Contacts read": result.read,
        "Contacts with any credits": _share(result.with_any_credits, result.students),
    }
    for name in sorted(result.with_credits):
        number = _share(result.with_credits[name], result.students)
        shown[f"Contacts with {name}"] = f"{number}, {result.credits[name]} credits in all"
    shown["Numbers that are none"] = result.unreadable or None
    shown["Not stored (another contact has the e-mail)"] = result.not_stored or None
    print_fields({f"{name}:": value for name, value in shown.items()})


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole if whole else 0:.1f} %)"


def _as_dict(result: ImportResult) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(result)
