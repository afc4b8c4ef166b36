"""Ends a hold: captures all or part of it, or releases it. Exactly one of many who try wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from tallybook.domain.errors import HoldNotFound
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.idempotency import Idempotency, key_params
from tallybook.usecases.metered import ask_about_credits, metadata_json


async def capture_hold(
    db: Database,
    *,
    hold: str,
    actor: str,
    credits: int | None = None,  # noqa: A002 - the word of the catalog
    metadata: Mapping[str, Any] | None = None,
    idempotency: Idempotency | None = None,
    dry_run: bool = False,
) -> Answer:
    """Takes `credits` of the hold (None: all) and gives back the rest.

    Raises HoldNotFound (also for another program's), HoldClosed (captured, released or expired, swept or
    not), ValidationError, LockTimeout, IdempotencyKeyReused, IdempotencyInProgress.
    """
    return await _close(
        db,
        hold,
        capture=True,
        credits=credits,
        metadata=metadata,
        actor=actor,
        idempotency=idempotency,
        dry_run=dry_run,
    )


async def release_hold(
    db: Database, *, hold: str, actor: str, idempotency: Idempotency | None = None, dry_run: bool = False
) -> Answer:
    """Gives everything back. Raises as `capture_hold`."""
    return await _close(
        db,
        hold,
        capture=False,
        credits=None,
        metadata=None,
        actor=actor,
        idempotency=idempotency,
        dry_run=dry_run,
    )


async def _close(
    db: Database,
    hold: str,
    *,
    capture: bool,
    credits: int | None,  # noqa: A002 - the word of the catalog
    metadata: Mapping[str, Any] | None,
    actor: str,
    idempotency: Idempotency | None,
    dry_run: bool,
) -> Answer:
    try:
        hold_id = UUID(hold)
    except ValueError:
        raise HoldNotFound from None
    params = {
        "hold_id": hold_id,
        "capture": capture,
        "credits": credits,
        "metadata": metadata_json(metadata),
        "actor": actor,
        "dry_run": dry_run,
        **key_params(actor, idempotency),
    }
    return await ask_about_credits(db, "close_hold", params)
