"""Grants or corrects one balance, with a reason."""

from __future__ import annotations

from uuid import UUID

from tallybook.domain.errors import ContactNotFound, CrmBusy
from tallybook.postgres.answers import Answer, StudentNotStored
from tallybook.postgres.pool import Database
from tallybook.usecases.idempotency import Idempotency, key_params


async def find_contact(db: Database, contact: str) -> UUID:
    """The UUID of a contact written as UUID, HubSpot id, `student:1599005` or `email:a@b.c`; follows merges.

    Raises ContactNotFound, AmbiguousContact.
    """
    row = await db.fetch_one("find_contact", {"contact": contact})
    if row is None or row[0] is None:
        raise ContactNotFound
    return UUID(str(row[0]))


async def grant_credits(
    db: Database,
    *,
    contact: str,
    credit_type: str,
    credits: int,  # noqa: A002 - the word of the catalog
    reason: str,
    actor: str,
    idempotency: Idempotency | None = None,
    dry_run: bool = False,
) -> Answer:
    """Adds `credits` (negative takes away).

    Raises ContactNotFound, AmbiguousContact, ValidationError, BalanceTooLow; CrmBusy while a mirrored balance
    has not been read from HubSpot.
    """
    try:
        return await db.answer(
            "adjust_credits",
            {
                "contact_id": await find_contact(db, contact),
                "credit_type": credit_type,
                "credits": credits,
                "reason": reason,
                "actor": actor,
                "dry_run": dry_run,
                **key_params(actor, idempotency),
            },
        )
    except StudentNotStored as error:
        raise CrmBusy(
            "HubSpot has not told this balance yet. Read it first: tallybook contact refresh CONTACT."
        ) from error
