"""The commands `tallybook key ...`."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallybook.cli.session import AsJson, actor, print_json, print_table, with_parts
from tallybook.domain.errors import NotFound, ValidationError

if TYPE_CHECKING:
    from tallybook.wiring import Parts


class Scope(StrEnum):
    """What a key opens."""

    CREDITS = "credits"
    STUDENTS = "students"


def create(
    name: Annotated[str, typer.Argument(help="Which program it is for.")],
    *,
    scope: Annotated[
        list[Scope], typer.Option(help="credits: metered actions; students: acts for any student.")
    ],
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=3650, help="Default: never.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key and show it, this once."""
    from tallybook.api.secrets import hash_api_secret
    from tallybook.usecases.keys import create_key

    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    expires_at = None if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)
    scopes = sorted({each.value for each in scope})

    async def work(parts: Parts) -> None:
        hashed = hash_api_secret(parts.settings.needed("TALLYBOOK_SECRET_KEY"), key_id=key_id, secret=secret)
        await create_key(
            parts.db,
            key_id=key_id,
            name=_name(name),
            secret_hash=hashed,
            scopes=scopes,
            expires_at=expires_at,
            actor=actor(),
        )

    with_parts(work)
    key = f"tb_{key_id}_{secret}"
    if as_json:
        print_json({"id": key_id, "key": key, "scopes": scopes, "expires_at": expires_at})
        return
    print(key)
    print(f"Keep it now: it is shown this once. To revoke it: tallybook key revoke {key_id}")


def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="Between tb_ and the next _")]) -> None:
    """Revoke an API key; servers forget it within a minute."""
    from tallybook.usecases.keys import revoke_key

    async def work(parts: Parts) -> bool:
        return await revoke_key(parts.db, key_id=key_id, actor=actor())

    if not with_parts(work):
        raise NotFound("There is no API key with this id. See: tallybook key list")
    print(f"The key {key_id} is revoked.")


def list_keys(*, as_json: AsJson = False) -> None:
    """List the API keys."""
    from tallybook.usecases import keys

    async def work(parts: Parts) -> list[dict[str, Any]]:
        return await keys.list_keys(parts.db)

    found = with_parts(work)
    if as_json:
        print_json(found)
    elif found:
        print_table(found, ("id", "name", "scopes", "created_at", "expires_at", "revoked_at"))
    else:
        print("There are no API keys. Create one: tallybook key create NAME --scope students")


def _name(text: str) -> str:
    name = " ".join(text.split())
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise ValidationError("The name of a key must have 1 to 100 visible characters.", field="name")
    return name
