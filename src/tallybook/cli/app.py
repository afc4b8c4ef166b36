"""All commands by name. Their modules import nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

from tallybook.cli import (
    backups,
    bookings,
    conflicts,
    contacts,
    database,
    demo_command,
    exams,
    importing,
    keys,
    loadtest,
    mirroring,
    rebinding,
    serving,
    setup_check,
    simulating,
    staff,
    sync,
    working,
)

_SETTINGS = {"help_option_names": ["-h", "--help"]}


def _group(purpose: str) -> typer.Typer:
    return typer.Typer(help=purpose, rich_markup_mode=None, no_args_is_help=True, context_settings=_SETTINGS)


app = typer.Typer(
    help="Tallybook: prepaid credits and seat bookings that stay right, kept in step with HubSpot.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    context_settings=_SETTINGS,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print("tallybook", version("tallybook"))
        raise typer.Exit


@app.callback()
def _tallybook(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

app.command("demo")(demo_command.demo)
app.command("serve")(serving.serve)
app.command("worker")(working.worker)
app.command("simulator", context_settings=_ANYTHING, add_help_option=False)(simulating.simulator)
app.command("migrate")(database.migrate)
app.command("import")(importing.import_everything)
app.command("verify")(database.verify)
app.command("backup")(backups.backup)
app.command("restore")(backups.restore)
app.command("doctor")(setup_check.doctor)
app.command("stats")(database.stats)
app.command("loadtest")(loadtest.loadtest)

_catalog = _group("What can be bought and booked.")
_catalog.command("check")(database.catalog_check)
_catalog.command("apply")(database.catalog_apply)
app.add_typer(_catalog, name="catalog")

_contact = _group("One person: balances, grants, re-reading from HubSpot.")
_contact.command("show")(contacts.show)
_contact.command("grant", context_settings={"ignore_unknown_options": True})(contacts.grant)
_contact.command("refresh")(contacts.refresh)
_contact.command("erase")(contacts.erase)
app.add_typer(_contact, name="contact")

_booking = _group("One booking.")
_booking.command("show")(bookings.show)
_booking.command("create")(bookings.create)
_booking.command("cancel")(bookings.cancel)
_booking.command("move")(bookings.move)
app.add_typer(_booking, name="booking")

_exam = _group("Mock exams: the sessions that can be booked.")
_exam.command("list")(exams.list_exams)
_exam.command("create")(exams.create)
app.add_typer(_exam, name="exam")

_staff = _group("Local staff accounts.")
_staff.command("add")(staff.add)
_staff.command("list")(staff.list_accounts)
app.add_typer(_staff, name="staff")

_key = _group("API keys of other programs.")
_key.command("create")(keys.create)
_key.command("revoke")(keys.revoke)
_key.command("list")(keys.list_keys)
app.add_typer(_key, name="key")

_sync = _group("The mirror: HubSpot and Tallybook in step.")
_sync.command("status")(sync.status)
_sync.command("push")(mirroring.push)
_sync.command("pull")(mirroring.pull)
_sync.command("conflicts")(conflicts.conflicts)
_sync.command("resolve", context_settings={"ignore_unknown_options": True})(conflicts.resolve)
_sync.command("dead")(conflicts.dead)
_sync.command("retry")(conflicts.retry)
_sync.command("discard")(conflicts.discard)
_sync.command("resume")(conflicts.resume)
_sync.command("reconcile")(mirroring.reconcile)
_sync.command("rebind")(rebinding.rebind)
app.add_typer(_sync, name="sync")
