"""`tallybook doctor`: what is right, what is risky, and what has to be done."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from tallybook.cli.session import AsJson, database_settings, print_json, read_settings
from tallybook.domain.errors import SetupError

if TYPE_CHECKING:
    from tallybook.settings import Settings
    from tallybook.usecases.check_setup import Finding, Fix
    from tallybook.usecases.mirror import Mirror

_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}
_PLAN = {
    "migrate": "apply the missing migrations and the catalog",
    "secure": "revoke every right that should not be there",
    "catalog": "apply the catalog of this program",
}
_CREATE = "create {} in portal {}"


def doctor(
    *,
    fix: Annotated[
        bool, typer.Option("--fix", help="Show a plan, ask, and do what can be done from here.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --fix: do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check settings, database, rights and HubSpot, and say what to do. Exit code 1 when something fails."""
    settings = read_settings()
    findings = _settings_findings(settings)
    if settings.tallybook_embedded or settings.database_url is not None:
        with database_settings(settings) as usable:
            findings += _look(usable)
            if fix and _fix(usable, findings, ask=not yes):
                findings = [*_settings_findings(settings), *_look(usable)]
    else:
        findings += asyncio.run(_look_at_hubspot(settings))
        if fix and _fix(settings, findings, ask=not yes):
            findings = [*_settings_findings(settings), *asyncio.run(_look_at_hubspot(settings))]
    _show(findings, as_json=as_json)
    if any(each.level == "fail" for each in findings):
        raise typer.Exit(1)


def _settings_findings(settings: Settings) -> list[Finding]:
    from tallybook.usecases.check_setup import Finding, Level

    found = [Finding(Level.WARN, "settings", line) for line in settings.warnings]
    found += [*_missing(settings), *_mode(settings), *_risks(settings), *_wrong(settings)]
    if not any(each.level == Level.FAIL for each in found):
        found.append(Finding(Level.OK, "settings", "complete"))
    return found


def _missing(settings: Settings) -> Iterator[Finding]:
    from tallybook.usecases.check_setup import Finding, Level

    needed = ["TALLYBOOK_SECRET_KEY", "TALLYBOOK_LOGIN_CODE"]
    if not settings.tallybook_embedded:
        needed.insert(0, "DATABASE_URL")
    for variable in needed:
        try:
            settings.needed(variable)
        except SetupError as error:
            yield Finding(Level.FAIL, "settings", error.message, error.hint)
    if settings.cron_secret is None:
        text = "CRON_SECRET is not set: the cron addresses are closed"
        yield Finding(Level.WARN, "settings", text, "Run tallybook worker, or set it.")


def _risks(settings: Settings) -> Iterator[Finding]:
    from tallybook.usecases.check_setup import Finding, Level

    if settings.tallybook_login_code == "none":
        yield Finding(
            Level.FAIL,
            "sign-in",
            "TALLYBOOK_LOGIN_CODE=none: whoever knows a student ID and an e-mail can book and cancel",
            "Set TALLYBOOK_LOGIN_CODE=email with TALLYBOOK_SMTP_URL and TALLYBOOK_MAIL_FROM.",
        )
    if settings.tallybook_student_auth == "pair":
        yield Finding(
            Level.WARN,
            "sign-in",
            "TALLYBOOK_STUDENT_AUTH=pair: no sign-in at all for whoever sends student ID and e-mail",
            "Only for the old front end, and only for a while.",
        )


def _mode(settings: Settings) -> Iterator[Finding]:
    from tallybook.usecases.check_setup import Finding, Level

    if settings.observes:
        yield Finding(
            Level.WARN,
            "mode",
            "TALLYBOOK_MODE=observe: every change is refused here, and HubSpot is only read",
            "Leave it out once Tallybook is to decide: docs/how-to/migrate.md.",
        )


def _wrong(settings: Settings) -> Iterator[Finding]:
    from tallybook.usecases.check_setup import Finding, Level
    from tallybook.wiring import alert_sender, mailer, read_catalog

    try:
        read_catalog(settings)
        alert_sender(settings)
        if mailer(settings) is None and settings.tallybook_login_code == "email":
            text = "TALLYBOOK_LOGIN_CODE=email, but there is no mail server"
            yield Finding(Level.FAIL, "sign-in", text, "Set TALLYBOOK_SMTP_URL and TALLYBOOK_MAIL_FROM.")
    except SetupError as error:
        yield Finding(Level.FAIL, "settings", error.message, error.hint)


def _look(settings: Settings) -> list[Finding]:
    from tallybook.usecases.check_setup import Level, check_database
    from tallybook.wiring import opened, release

    async def inside() -> list[Finding]:
        async with opened(settings, pool_size=2) as parts:
            found = await check_database(parts.db, parts.catalog, release=release())
            fits = not any(each.level == Level.FAIL and each.subject != "rights" for each in found)
            return found + await _look_at_hubspot(settings, parts.mirror if fits else None)

    return asyncio.run(inside())


async def _look_at_hubspot(settings: Settings, mirror: Mirror | None = None) -> list[Finding]:
    from tallybook.usecases.check_mirror import check_binding, check_stamps, check_write_access
    from tallybook.usecases.check_setup import Finding, Level, check_hubspot
    from tallybook.wiring import read_catalog, unlimited_hubspot

    if settings.hs_private_app_token is None:
        return [
            Finding(
                Level.WARN,
                "HubSpot",
                "HS_PRIVATE_APP_TOKEN is not set: only stored students are known",
                "Set it to the access token of your HubSpot private app or service key.",
            )
        ]
    catalog = read_catalog(settings)
    async with unlimited_hubspot(settings) as client:
        found = await check_hubspot(client, catalog, observe=settings.observes)
        if any(each.level == Level.FAIL and each.subject == "HubSpot" for each in found):
            return found
        if not settings.observes:
            found += await check_write_access(client)
        # Before our properties are there, there is nothing to look for.
        if not any(each.fix for each in found):
            found += await check_stamps(client, catalog, None if mirror is None else mirror.db)
        if mirror is not None:
            found += await check_binding(dataclasses.replace(mirror, client=client))
    return found


def _fix(settings: Settings, findings: list[Finding], *, ask: bool) -> bool:
    """Does what can be done after showing it; false when there is nothing, or the answer was no."""
    from tallybook.usecases.check_setup import Fix

    wanted = [each for each in Fix if any(finding.fix is each for finding in findings)]
    if not wanted:
        print("There is nothing that --fix can do.", file=sys.stderr)
        return False
    print("This would be done:", file=sys.stderr)
    for each in wanted:
        lines = asyncio.run(_to_create(settings)) if each is Fix.PORTAL else [_PLAN[each.value]]
        for line in lines:
            print(f"  {line}", file=sys.stderr)
    if ask and not typer.confirm("Do it?", err=True):
        return False
    asyncio.run(_do(settings, wanted))
    return True


async def _to_create(settings: Settings) -> list[str]:
    from tallybook.hubspot.budget import CallKind
    from tallybook.usecases.prepare_portal import plan_portal
    from tallybook.wiring import read_catalog, unlimited_hubspot

    async with unlimited_hubspot(settings) as client:
        account = await client.account_details(kind=CallKind.RECONCILE, deadline_s=20.0)
        plan = await plan_portal(client, read_catalog(settings))
    return [_CREATE.format(each, account.portal_id) for each in plan.to_create]


async def _do(settings: Settings, wanted: list[Fix]) -> None:
    from tallybook.postgres.catalog_tables import apply_catalog
    from tallybook.postgres.migrate import migrate
    from tallybook.postgres.secure import secure_schema
    from tallybook.usecases.check_setup import Fix
    from tallybook.usecases.prepare_portal import prepare_portal
    from tallybook.wiring import read_catalog, unlimited_hubspot

    if Fix.MIGRATE in wanted:
        await migrate(settings.migration_url)
    if Fix.SECURE in wanted:
        await secure_schema(settings.migration_url)
    if Fix.MIGRATE in wanted or Fix.CATALOG in wanted:
        await apply_catalog(settings.migration_url, read_catalog(settings))
    if Fix.PORTAL in wanted:
        async with unlimited_hubspot(settings) as client:
            await prepare_portal(client, read_catalog(settings))


def _show(findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        print_json([dataclasses.asdict(each) for each in findings])
        return
    for each in findings:
        word = f"{each.level.value:<4}"
        if sys.stdout.isatty():
            word = f"\033[{_COLOURS[each.level.value]}m{word}\033[0m"
        print(f"{word}  {each.subject}: {each.found}")
        if each.to_do and each.level != "ok":
            print(f"      {each.to_do}")
