"""Gives back what one charge or capture took."""

from __future__ import annotations

from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.idempotency import Idempotency, key_params
from tallybook.usecases.metered import ask_about_credits


async def refund_use(
    db: Database,
    *,
    entry_id: int,
    actor: str,
    idempotency: Idempotency | None = None,
    dry_run: bool = False,
) -> Answer:
    """{entry_id, reverses_entry_id, credits_restored, balances}; to the survivor when contacts were merged.

    Raises EntryNotFound (also for another program's), AlreadyRefunded, LockTimeout, IdempotencyKeyReused,
    IdempotencyInProgress.
    """
    params = {
        "entry_id": entry_id,
        "actor": actor,
        "dry_run": dry_run,
        **key_params(actor, idempotency),
    }
    return await ask_about_credits(db, "refund_use", params)
