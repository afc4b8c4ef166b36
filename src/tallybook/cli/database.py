"""Commands about the database as a whole: schema, catalog, proof, figures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallybook.cli.session import (
    AsJson,
    DryRun,
    database_settings,
    print_fields,
    print_json,
    print_table,
    read_settings,
    with_parts,
)

if TYPE_CHECKING:
    from tallybook.domain.catalog import Catalog
    from tallybook.settings import Settings
    from tallybook.wiring import Parts

CatalogFile = Annotated[
    Path | None, typer.Option(help="A catalog file; default TALLYBOOK_CATALOG, else the packaged one.")
]


def migrate(
    *,
    status: Annotated[bool, typer.Option("--status", help="Show what is there and what is missing.")] = False,
    dry_run: DryRun = False,
    mark_supabase: Annotated[
        bool, typer.Option("--mark-supabase", help="Also tell Supabase's own history of migrations.")
    ] = False,
) -> None:
    """Bring the schema and the catalog of the database up to this release."""
    with database_settings() as settings:
        if status:
            _show_status(settings)
        else:
            _migrate(settings, dry_run=dry_run, mark_supabase=mark_supabase)


def _show_status(settings: Settings) -> None:
    from tallybook.postgres.migrate import migrations, read_status

    status = asyncio.run(read_status(settings.migration_url))
    for each in migrations():
        state = "missing" if each.version in status.pending else "applied"
        print(f"{state}  {each.version}_{each.name}")
    for version in status.unknown:
        print(f"newer    {version} (this release does not know it)")
    print(f"{len(status.applied)} applied, {len(status.pending)} missing")


def _migrate(settings: Settings, *, dry_run: bool, mark_supabase: bool) -> None:
    from tallybook.postgres.catalog_tables import apply_catalog
    from tallybook.postgres.migrate import migrate as apply_migrations
    from tallybook.wiring import read_catalog

    catalog = read_catalog(settings)

    async def work() -> None:
        uri = settings.migration_url
        done = await apply_migrations(uri, dry_run=dry_run, mark_supabase=mark_supabase)
        for each in done:
            print("would apply" if dry_run else "applied", f"{each.version}_{each.name}")
        if not done:
            print("The schema is up to date.")
        if dry_run:
            return
        before = await apply_catalog(uri, catalog)
        print("The catalog is up to date." if before == catalog.hash else "The catalog was applied.")

    asyncio.run(work())


def catalog_check(*, file: CatalogFile = None, as_json: AsJson = False) -> None:
    """Read the catalog file in full and say what it has, and whether the database has the same."""
    catalog = _read_catalog(read_settings(), file)
    shown = {
        "credit types": [each.name for each in catalog.credit_types],
        "mock types": [each.name for each in catalog.mock_types],
        "places": [each.name for each in catalog.places],
        "actions": {each.name: each.cost_credits for each in catalog.actions},
        "packs": {each.name: each.credits for each in catalog.packs},
        "hash": catalog.hash,
    }
    if as_json:
        print_json({name.replace(" ", "_"): value for name, value in shown.items()})
        return
    print("The catalog is valid.")
    print_fields(shown)


def catalog_apply(*, file: CatalogFile = None) -> None:
    """Make the database decide by this catalog; what left the file is retired, never deleted."""
    from tallybook.postgres.catalog_tables import apply_catalog

    with database_settings() as settings:
        catalog = _read_catalog(settings, file)
        before = asyncio.run(apply_catalog(settings.migration_url, catalog))
    print("The catalog is up to date." if before == catalog.hash else "The catalog was applied.")


def _read_catalog(settings: Settings, file: Path | None) -> Catalog:
    from tallybook.wiring import read_catalog

    return read_catalog(settings if file is None else settings.model_copy(update={"tallybook_catalog": file}))


def verify(
    *,
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Compare HubSpot with whatever is settled here, too.")
    ] = False,
    wait: Annotated[
        float,
        typer.Option(
            min=0, metavar="S", help="With --mirror: wait so many seconds for what is still on its way."
        ),
    ] = 0.0,
) -> None:
    """Recompute every number from the ledger; exit code 1 and a list when one is wrong."""
    from tallybook.cli.verifying import compare_mirror, show_report
    from tallybook.usecases.verify import verify as recompute

    async def work(parts: Parts) -> Any:
        if mirror:
            parts.settings.needed("HS_PRIVATE_APP_TOKEN")
        compared = await compare_mirror(parts.mirror, wait_s=wait, quiet=as_json) if mirror else None
        return await recompute(parts.db), compared

    report, compared = with_parts(work)
    if not show_report(report, compared=compared, as_json=as_json, strict=strict):
        raise typer.Exit(1)


def stats(*, as_json: AsJson = False) -> None:
    """Contacts, credits, bookings, sessions and what waits to be sent."""
    from tallybook.usecases.show_stats import show_stats

    async def work(parts: Parts) -> dict[str, Any]:
        return await show_stats(parts.db)

    found = with_parts(work)
    if as_json:
        print_json(found)
        return
    print_fields({name: value for name, value in found.items() if not isinstance(value, list)})
    print()
    print_table(found["credits"], ("credit_type", "contacts", "balance", "held"))
    print()
    print_table(found["mock_exams"], ("mock_type", "upcoming", "seats", "booked", "past"))
