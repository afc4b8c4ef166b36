"""What a person has, and how it came about."""

from __future__ import annotations

from tallybook.domain.callers import Caller
from tallybook.domain.contacts import Pair
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.ask import ask
from tallybook.usecases.credits_cache import CreditsCache
from tallybook.usecases.find_student import Students


async def show_credits(
    db: Database,
    students: Students,
    *,
    caller: Caller,
    pair: Pair | None,
    cache: CreditsCache | None = None,
    refresh: bool = False,
) -> Answer:
    """All balances. From the database; with a `cache` and without `refresh` perhaps from there."""
    # The epoch is part of the key: whoever has signed out everywhere finds nothing.
    key = repr((caller.kind, caller.contact_id, caller.epoch, pair))
    if cache is not None and not refresh:
        kept = cache.get(key)
        if kept is not None:
            return Answer(kept)
    generation = cache.generation if cache is not None else 0
    answer = await ask(db, students, query="show_credits", caller=caller, pair=pair, params={})
    if cache is not None:
        cache.put(key, answer.data, generation=generation)
    return answer


async def usage_history(
    db: Database,
    students: Students,
    *,
    caller: Caller,
    pair: Pair | None,
    page: int,
    per_page: int,
    action_filter: str | None,
) -> Answer:
    """A page of the ledger, newest first; `action_filter` is a reason such as `booking` or `refund`."""
    return await ask(
        db,
        students,
        query="usage_history",
        caller=caller,
        pair=pair,
        params={"page": page, "per_page": per_page, "reason": action_filter},
    )
