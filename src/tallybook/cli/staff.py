"""The commands `tallybook staff ...`."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallybook.cli.session import AsJson, actor, print_json, print_table, with_parts

if TYPE_CHECKING:
    from tallybook.usecases.create_staff import StaffAccount
    from tallybook.wiring import Parts


class Role(StrEnum):
    """The words of the option; the use case knows what they mean."""

    VIEWER = "viewer"
    COORDINATOR = "coordinator"
    ADMIN = "admin"
    SUPER_ADMIN = "super_admin"


def add(
    email: Annotated[str, typer.Argument(help="The e-mail to sign in with.")],
    *,
    role: Annotated[Role, typer.Option(help="What the account may do.")],
    name: Annotated[str | None, typer.Option(help="A name to show.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a staff account, or give one a new role and password, which is asked for or read from a pipe."""
    from tallybook.domain.staff import StaffRole
    from tallybook.usecases.create_staff import create_staff

    password = _password()

    async def work(parts: Parts) -> StaffAccount:
        return await create_staff(
            parts.db, email=email, name=name, role=StaffRole(role.value), password=password, actor=actor()
        )

    account = with_parts(work)
    if as_json:
        print_json({"id": account.id, "email": account.email, "is_new": account.is_new})
    else:
        what = "was added" if account.is_new else "has a new role and password"
        print(f"{account.email} {what}: {role.value}.")


def list_accounts(*, as_json: AsJson = False) -> None:
    """List the staff accounts."""
    from tallybook.usecases.create_staff import list_staff

    async def work(parts: Parts) -> list[dict[str, Any]]:
        return await list_staff(parts.db)

    found = with_parts(work)
    if as_json:
        print_json(found)
    elif found:
        print_table(found, ("email", "name", "role", "created_at", "disabled_at"))
    else:
        print("There are no staff accounts. Add one: tallybook staff add EMAIL --role admin")


def _password() -> str:
    # Never an argument: those are in the shell's history and in everybody's process list.
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return str(typer.prompt("Password (12 characters or more)", hide_input=True, confirmation_prompt=True))
