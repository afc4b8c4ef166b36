"""Says whether a contact could pay for some actions now."""

from __future__ import annotations

from collections.abc import Sequence

from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.metered import ActionUse, actions_json, ask_about_credits


async def check_actions(db: Database, *, contact: str, actions: Sequence[ActionUse]) -> Answer:
    """{allowed, needed, available, what_helps?, as_of}; sets nothing aside, so a hold is what to rely on.

    Raises ContactNotFound, AmbiguousContact, ActionNotFound, CrmBusy.
    """
    params = {"contact": contact, "actions": actions_json(actions)}
    return await ask_about_credits(db, "check_actions", params)
