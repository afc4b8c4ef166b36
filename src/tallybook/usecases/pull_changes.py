"""Follows up what HubSpot hinted at: reads the records again and merges what they say."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import msgspec
import structlog

from tallybook.domain.errors import (
    ContactNotFound,
    CrmUnavailable,
    DatabaseUnavailable,
    LockTimeout,
    SetupError,
    TallybookError,
    Unavailable,
)
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import BATCH_SIZE
from tallybook.hubspot.errors import is_passing
from tallybook.hubspot.write_results import Fault, Refusal
from tallybook.postgres.pool import Database
from tallybook.usecases.ask_to_read import ask_to_read
from tallybook.usecases.erase_contact import erase_contact
from tallybook.usecases.mirror import Mirror, Pulled
from tallybook.usecases.pause_lane import why_unreadable
from tallybook.usecases.pull_records import pull_records

_log = structlog.get_logger(__name__)

# Longer than reading and merging may take: within it nobody else reads the same.
_LEASE_S = 60.0
_DEADLINE_S = 30.0
# While a person has to change something, one record is tried after so long, then less and less often.
_PROBE_S = (15.0, 300.0)
_LONGEST_WAIT_S = 900.0
_PRIVACY_DELETION = ".privacyDeletion"
_FORGOTTEN = "deleted for privacy in HubSpot"
_LASTING = frozenset((Fault.UNAUTHORISED, Fault.FORBIDDEN, Fault.SETUP, Fault.DAILY_LIMIT, Fault.MIGRATING))


@dataclass(frozen=True, slots=True)
class Hint:
    """One row of the inbox under our lease; `hubspot_ids` are its record and, after a merge, those merged."""

    id: int
    hubspot_ids: tuple[str, ...]
    subscription_type: str


@dataclass(frozen=True, slots=True)
class Lease:
    """Hints about records of one type that are ours for a minute."""

    token: UUID
    mirrored: MirroredType
    hints: tuple[Hint, ...]

    @property
    def hubspot_ids(self) -> tuple[str, ...]:
        """All records to read, each once."""
        return tuple(dict.fromkeys(each for hint in self.hints for each in hint.hubspot_ids))


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of the hints of one lease, and what reading the records brought."""

    hints: int = 0
    read: int = 0
    absorbed: int = 0
    again: int = 0
    missing: int = 0
    failed: int = 0


async def claim_hints(db: Database, types: Collection[MirroredType]) -> Lease | None:
    """Hints about up to a hundred records of one of these types; None when nothing is due."""
    token = uuid4()
    rows = await db.fetch_all(
        "claim_inbox", {"types": list(types), "token": token, "lease_s": _LEASE_S, "limit": BATCH_SIZE}
    )
    if not rows:
        return None
    hints = tuple(
        Hint(hint_id, _ids(hubspot_id, details), subscription_type)
        for hint_id, _, hubspot_id, subscription_type, details in rows
    )
    return Lease(token, MirroredType(rows[0][1]), hints)


async def follow_hints(mirror: Mirror, lease: Lease) -> Followed:
    """Reads the records of a lease and settles its hints.

    Raises CrmBusy, CrmUnavailable and SetupError when HubSpot could not be asked: the hints wait without
    using up an attempt. Raises DatabaseUnavailable: they wait until the lease ends.
    """
    try:
        pulled = await pull_records(
            mirror, lease.mirrored, lease.hubspot_ids, kind=CallKind.PULL, deadline_s=_DEADLINE_S
        )
    except DatabaseUnavailable:
        raise
    except (SetupError, Unavailable) as error:
        if _is_definite(error):
            return await _fail(mirror.db, lease, error)
        await _put_off(mirror.db, lease, error)
        raise
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - one record must not stop the others; it comes alone next time.
        _log.error("pull_failed", object_type=lease.mirrored, error=type(error).__name__, exc_info=error)
        return await _fail(mirror.db, lease, error)
    return await _take_up(mirror.db, lease, pulled)


async def _take_up(db: Database, lease: Lease, pulled: Pulled) -> Followed:
    again = set(pulled.again) | await _forget(db, lease, pulled)
    left: dict[int, tuple[str, str]] = {}
    for hint in lease.hints:
        words = next((pulled.errors[each] for each in hint.hubspot_ids if each in pulled.errors), None)
        if words is not None:
            left[hint.id] = ("refused", words)
        elif not again.isdisjoint(hint.hubspot_ids):
            left[hint.id] = ("again", "")
    # An id that was merged away answers under another one.
    others = (again | set(pulled.errors)) - set(lease.hubspot_ids)
    if others:
        await ask_to_read(db, lease.mirrored, sorted(others), after_s=0.5)
    await _settle(db, lease, left, was_read=True)
    return Followed(
        hints=len(lease.hints),
        read=pulled.read,
        absorbed=pulled.absorbed,
        again=len(again),
        missing=len(pulled.missing),
        failed=len(pulled.errors),
    )


async def _forget(db: Database, lease: Lease, pulled: Pulled) -> set[str]:
    """Forgets people whom HubSpot was told to forget and indeed no longer has; gives those to try again."""
    again: set[str] = set()
    for hint in lease.hints:
        if not hint.subscription_type.endswith(_PRIVACY_DELETION):
            continue
        if lease.mirrored is not MirroredType.CONTACT or hint.hubspot_ids[0] not in pulled.missing:
            continue
        try:
            await erase_contact(db, contact=hint.hubspot_ids[0], reason=_FORGOTTEN, actor="hubspot")
        except ContactNotFound:
            _log.info("nobody_to_forget")
        except LockTimeout:
            again.add(hint.hubspot_ids[0])
    return again


async def _fail(db: Database, lease: Lease, error: Exception) -> Followed:
    # The text of an exception may name a person; what HubSpot itself said of a refusal is for the operator.
    details = error.details if isinstance(error, TallybookError) else {}
    words = str(details.get("hubspot_message") or details.get("problem") or type(error).__name__)
    await _settle(db, lease, dict.fromkeys(_all(lease), ("failed", words)))
    return Followed(hints=len(lease.hints), failed=len(lease.hubspot_ids))


async def _settle(
    db: Database,
    lease: Lease,
    left: Mapping[int, tuple[str, str]],
    *,
    wait_s: float = 0.0,
    was_read: bool = False,
) -> None:
    rows = [{"id": hint_id, "outcome": outcome, "words": words} for hint_id, (outcome, words) in left.items()]
    await db.fetch_all(
        "settle_inbox",
        {
            "token": lease.token,
            "done": [each for each in _all(lease) if each not in left],
            "left": msgspec.json.encode(rows).decode(),
            "wait_s": wait_s,
            "was_read": was_read,
        },
    )


async def _put_off(db: Database, lease: Lease, error: TallybookError) -> None:
    """The hints wait; where that will not help soon, pulling pauses so that people see why."""
    wait_s = float(error.retry_after_s) if isinstance(error, Unavailable) else 1.0
    why = why_unreadable(error)
    if isinstance(why, Refusal) and why.fault in _LASTING:
        first_s, most_s = _PROBE_S
        pauses = {"wait_s": max(first_s, wait_s), "most_s": max(most_s, wait_s)}
        reason = {"reason": why.fault.value, "words": why.words[:500]}
        await db.fetch_all("pause_lane", {"lane": "pull", **reason, **pauses})
        wait_s = 1.0
    spread = random.uniform(1.0, 1.5)  # noqa: S311 - spreads load, no secret.
    left = dict.fromkeys(_all(lease), ("later", ""))
    await _settle(db, lease, left, wait_s=min(wait_s, _LONGEST_WAIT_S) * spread)


def _is_definite(error: TallybookError) -> bool:
    """Whether HubSpot refused the very call: asking the same again gets the same."""
    status = error.details.get("status")
    return isinstance(error, CrmUnavailable) and isinstance(status, int) and not is_passing(status)


def _all(lease: Lease) -> Sequence[int]:
    return [hint.id for hint in lease.hints]


def _ids(hubspot_id: str, details: bytes) -> tuple[str, ...]:
    merged: dict[str, Any] = msgspec.json.decode(details)
    return (hubspot_id, *(each for ids in merged.values() if isinstance(ids, list) for each in ids))
