"""`tallybook backup` and `tallybook restore`: our schema in one file, and back."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tallybook.cli.session import database_settings
from tallybook.domain.errors import TallybookError

if TYPE_CHECKING:
    from tallybook.postgres.backup_archive import Manifest
    from tallybook.settings import Settings
    from tallybook.usecases.verify import Report
    from tallybook.wiring import Parts

ToFile = Annotated[Path, typer.Argument(metavar="FILE", help="A file that does not exist yet.")]
FromFile = Annotated[Path, typer.Argument(metavar="FILE", help="What `tallybook backup` wrote.")]


def backup(file: ToFile) -> None:
    """Write everything of Tallybook's into one file, while servers and workers go on."""
    with database_settings() as settings:
        manifest = asyncio.run(_backup(settings, file))
    print(f"{file}: {manifest.rows} rows in {len(manifest.tables)} tables, {file.stat().st_size} bytes.")


async def _backup(settings: Settings, file: Path) -> Manifest:
    from tallybook.postgres.backup import write_backup
    from tallybook.wiring import opened, release

    async with opened(settings, pool_size=2) as parts:
        await parts.demand_schema()
        manifest = await write_backup(settings.migration_url, file, release=release(), on_progress=_tell)
        await _mark(parts)
    return manifest


async def _mark(parts: Parts) -> None:
    """HubSpot hears that the database went on, so that a restore of this backup is noticed."""
    from tallybook.usecases.mark_backup import mark_backup

    if parts.settings.hs_private_app_token is None:
        return
    try:
        await mark_backup(parts.mirror)
    except TallybookError as error:
        print(
            f"warning: the backup is complete, but HubSpot could not be told: {error.message}"
            " A restore of it puts pushing on hold all the same.",
            file=sys.stderr,
        )


def restore(
    file: FromFile,
    *,
    replace: Annotated[
        bool,
        typer.Option("--replace", "--yes", help="Also where the database holds something: it is replaced."),
    ] = False,
) -> None:
    """Make Tallybook's schema what it was when the backup was made; all or nothing, then verified.

    Stop servers and workers first. Nothing is pushed before HubSpot was asked whether it is ahead.
    """
    from tallybook.cli.verifying import show_report

    with database_settings() as settings:
        manifest, report, hold = asyncio.run(_restore(settings, file, replace=replace))
    is_right = show_report(report, as_json=False, strict=False)
    print(f"Restored what was backed up at {manifest.made_at}: {manifest.rows} rows.")
    print(_advice(hold))
    if not is_right:
        raise typer.Exit(1)


async def _restore(settings: Settings, file: Path, *, replace: bool) -> tuple[Manifest, Report, str | None]:
    from tallybook.postgres.backup import restore_backup
    from tallybook.usecases.guard_mirror import demand_same_portal
    from tallybook.usecases.verify import verify
    from tallybook.wiring import opened

    manifest = await restore_backup(settings.migration_url, file, replace=replace, on_progress=_tell)
    async with opened(settings, pool_size=2) as parts:
        if settings.hs_private_app_token is not None:
            try:
                await demand_same_portal(parts.mirror)
            except TallybookError as error:
                print(f"warning: {error.message}", file=sys.stderr)
        row = await parts.db.fetch_one("show_hold")
        return manifest, await verify(parts.db), row[0] if row else None


def _advice(hold: str | None) -> str:
    if hold is None:
        return "HubSpot is not ahead of it: servers and workers may start."
    return "Servers may start; nothing is pushed until you have run: tallybook sync reconcile --after-restore"


def _tell(table: str, rows: int) -> None:
    if rows:
        print(f"{table}: {rows} rows", file=sys.stderr)
