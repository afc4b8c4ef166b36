"""`tallybook import --from-old-schema`: the system before hands over."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from tallybook.cli.session import print_fields, print_json, with_parts
from tallybook.domain.errors import SetupError

if TYPE_CHECKING:
    from tallybook.jobs.lease import JobResult
    from tallybook.usecases.take_over import Difference, TakenOver
    from tallybook.wiring import Parts


def take_over(
    schema: str, *, old_database_url: str | None, prefer: str | None, dry_run: bool, as_json: bool
) -> None:
    """Reports each difference between the old database and HubSpot, then takes both over."""
    from tallybook.jobs import import_students
    from tallybook.jobs.lease import JobResult, JobRunningError, under_lease
    from tallybook.postgres.old_schema import opened_old_schema
    from tallybook.usecases import take_over as use_case

    if prefer is None:
        raise SetupError(
            "Whose numbers hold where the two differ?",
            hint="Give --prefer database or --prefer hubspot; --dry-run shows the differences.",
        )
    found: list[TakenOver] = []
    differences: list[Difference] = []

    async def work(parts: Parts) -> None:
        parts.settings.needed("HS_PRIVATE_APP_TOKEN")

        async def bring_over() -> JobResult:
            uri = old_database_url or parts.settings.migration_url
            async with opened_old_schema(uri, schema) as old:
                result = await use_case.take_over(
                    parts.mirror,
                    old,
                    prefer=use_case.Prefer(prefer),
                    dry_run=dry_run,
                    on_difference=differences.append if as_json else _tell,
                )
            found.append(result)
            return JobResult({"contacts": result.contacts, "bookings": result.bookings})

        if dry_run:
            await bring_over()
            return
        try:
            await under_lease(parts.db, import_students.JOB, bring_over)
        except JobRunningError as error:
            raise SetupError("another import is running", hint="Wait until it ends, or stop it.") from error

    with_parts(work)
    _show(found[0], differences, dry_run=dry_run, as_json=as_json)


def _tell(difference: Difference) -> None:
    here, there = difference.database or "-", difference.hubspot or "-"
    print(f"{difference.of} {difference.ref}: {difference.field}: database {here}, HubSpot {there}")


def _show(result: TakenOver, differences: list[Difference], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        shown: dict[str, Any] = dataclasses.asdict(result)
        shown.pop("imported")
        print_json({"dry_run": dry_run, **shown, "found": [dataclasses.asdict(each) for each in differences]})
        return
    print_fields(
        {
            "people compared": result.contacts,
            "bookings compared": result.bookings,
            "differences": dict(result.differences),
            "people opened with the old numbers": result.opened,
            "bookings": dict(result.bookings_by_outcome),
        }
    )
    for ref, why in result.not_taken.items():
        print(f"not taken: {ref}: {why}", file=sys.stderr)
    if not dry_run:
        print("Taken over. Let the worker push what differs, then: tallybook verify --mirror")
