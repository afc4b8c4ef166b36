"""Sets credits aside for some actions until they are captured, released or expire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.idempotency import Idempotency, key_params
from tallybook.usecases.metered import ActionUse, actions_json, ask_about_credits, metadata_json

SHORTEST_HOLD_S, USUAL_HOLD_S, LONGEST_HOLD_S = 5, 900, 86_400


async def hold_credits(
    db: Database,
    *,
    contact: str,
    actions: Sequence[ActionUse],
    actor: str,
    expires_in_s: int = USUAL_HOLD_S,
    metadata: Mapping[str, Any] | None = None,
    idempotency: Idempotency | None = None,
    dry_run: bool = False,
) -> Answer:
    """{id, held, actions, expires_at, balances}. The price is that of this moment, also when captured later.

    Raises as `charge_actions`.
    """
    params = {
        "contact": contact,
        "actions": actions_json(actions),
        "expires_in_s": expires_in_s,
        "metadata": metadata_json(metadata),
        "actor": actor,
        "dry_run": dry_run,
        **key_params(actor, idempotency),
    }
    return await ask_about_credits(db, "hold_credits", params)
