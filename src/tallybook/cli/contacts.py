"""The commands `tallybook contact ...`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallybook.cli.session import AsJson, DryRun, actor, print_fields, print_json, print_table, with_parts

if TYPE_CHECKING:
    from tallybook.wiring import Parts

Contact = Annotated[str, typer.Argument(help="UUID, HubSpot id, student:1599005 or email:a@b.c")]


ENTRY_COLUMNS = ("at", "credit_type", "delta", "balance_after", "reason", "actor")
_LISTS = {
    "credits": ("credit_type", "balance", "held", "in_hubspot"),
    "bookings": ("booking_id", "status", "starts_at", "token_used"),
    "entries": ENTRY_COLUMNS,
}


def show(contact: Contact, *, as_json: AsJson = False) -> None:
    """Show a contact: balances, bookings and the newest ledger entries."""
    from tallybook.usecases.show_contact import show_contact

    async def work(parts: Parts) -> dict[str, Any]:
        return await show_contact(parts.db, contact=checked(contact))

    _show(with_parts(work), as_json=as_json)


def grant(
    contact: Contact,
    credit_type: Annotated[str, typer.Argument(metavar="TYPE", help="A credit type, e.g. sj_credits")],
    credits: Annotated[  # noqa: A002 - the word of the catalog
        int,
        typer.Argument(metavar="N", min=-999_999_999, max=999_999_999, help="How many; negative takes away"),
    ],
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Grant or take away credits of one type."""
    from tallybook.usecases.grant_credits import grant_credits

    async def work(parts: Parts) -> dict[str, Any]:
        answer = await grant_credits(
            parts.db,
            contact=checked(contact),
            credit_type=credit_type,
            credits=credits,
            reason=reason,
            actor=actor(),
            dry_run=dry_run,
        )
        return dict(json.loads(answer.data))

    done = with_parts(work, decides=not dry_run)
    if as_json:
        print_json(done)
        return
    would = "would be" if dry_run else "is"
    print(f"{credits:+d} {credit_type}: the balance {would} now {done['balance_after']}.")


def refresh(contact: Contact, *, as_json: AsJson = False) -> None:
    """Read a contact again from HubSpot and merge what it says."""
    from tallybook.usecases.refresh_contact import refresh_contact
    from tallybook.usecases.show_contact import show_contact

    async def work(parts: Parts) -> dict[str, Any]:
        contact_id = await refresh_contact(parts.mirror, parts.portal, contact=checked(contact))
        return await show_contact(parts.db, contact=str(contact_id))

    _show(with_parts(work), as_json=as_json)


def erase(
    contact: Contact,
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a person: names, addresses and texts go, every number stays. It cannot be undone.

    HubSpot is not told: delete the person there as well.
    """
    from tallybook.usecases.erase_contact import erase_contact

    async def work(parts: Parts) -> dict[str, Any]:
        ref = checked(contact)
        if not yes and not typer.confirm(f"Forget {ref} for good?", err=True):
            raise typer.Abort
        answer = await erase_contact(parts.db, contact=ref, reason=reason, actor=actor())
        return dict(json.loads(answer.data))

    done = with_parts(work)
    if as_json:
        print_json(done)
        return
    print(f"{done['id']} is forgotten.")
    if done.get("live_bookings"):
        print(f"{done['live_bookings']} seats are still taken: tallybook booking cancel gives them back.")


def checked(contact: str) -> str:
    """The same text when it can name a contact. Raises ValidationError."""
    from tallybook.domain.contacts import parse_contact_ref

    parse_contact_ref(contact)
    return contact.strip()


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    lists = {name: found.pop(name) for name in _LISTS}
    print_fields(found)
    for name, columns in _LISTS.items():
        print(f"\n{name}")
        if lists[name]:
            print_table(lists[name], columns)
        else:
            print("none")
