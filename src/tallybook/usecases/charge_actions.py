"""Takes the credits of some actions: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.idempotency import Idempotency, key_params
from tallybook.usecases.metered import ActionUse, actions_json, ask_about_credits, metadata_json


async def charge_actions(
    db: Database,
    *,
    contact: str,
    actions: Sequence[ActionUse],
    actor: str,
    metadata: Mapping[str, Any] | None = None,
    idempotency: Idempotency | None = None,
    dry_run: bool = False,
) -> Answer:
    """{entry_ids, charged, balances}; `outcome` is `created`, in a dry run `ok` with nothing kept.

    Raises ContactNotFound, AmbiguousContact, ActionNotFound, InsufficientCredits, ValidationError, CrmBusy,
    LockTimeout, IdempotencyKeyReused, IdempotencyInProgress.
    """
    params = {
        "contact": contact,
        "actions": actions_json(actions),
        "metadata": metadata_json(metadata),
        "actor": actor,
        "dry_run": dry_run,
        **key_params(actor, idempotency),
    }
    return await ask_about_credits(db, "charge_actions", params)
