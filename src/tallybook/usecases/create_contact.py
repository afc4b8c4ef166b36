"""Finds a person another program knows, or creates them with the welcome credits."""

from __future__ import annotations

from tallybook.domain.contacts import normalise_email
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database


async def create_contact(
    db: Database,
    *,
    email: str,
    firstname: str | None,
    lastname: str | None,
    external_id: str | None,
    actor: str,
    dry_run: bool = False,
) -> Answer:
    """{id, created, hubspot_id, balances}; `outcome` is `created` or `already`.

    Somebody who is there already is left as they are and gets nothing. `external_id` is the program's own id
    for them; it finds them after their address has changed. Raises ValidationError, AmbiguousContact.
    """
    params = {
        "email": normalise_email(email),
        "firstname": firstname,
        "lastname": lastname,
        "external_id": external_id,
        "actor": actor,
        "dry_run": dry_run,
    }
    return await db.answer("create_contact", params)
