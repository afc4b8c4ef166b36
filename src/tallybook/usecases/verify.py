"""Proves every number from the rows that explain it, and lists what does not add up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tallybook.postgres.pool import Database
from tallybook.postgres.queries import sql

INVARIANTS = (
    "balances_are_explained",
    "balances_stay_in_bounds",
    "entries_have_no_gaps",
    "entries_add_up",
    "held_is_open_holds",
    "seats_are_live_bookings",
    "seats_stay_within_capacity",
    "bookings_are_paid_once",
    "refunds_are_as_marked",
    "reversals_fit",
    "payments_are_in_the_ledger",
    "one_live_booking_per_day",
    "no_live_bookings_overlap",
    "bookings_repeat_their_session",
    "booking_ids_are_well_formed",
    "keys_keep_their_answer",
    "merges_are_followed",
    "erased_contacts_are_blank",
    "types_are_known",
    "outbox_is_consistent",
)
"""What must always hold; each is a query of the same name that gives what breaks it."""

_WARNING = "grandfathered_bookings"
_COUNTED = (
    "contacts", "balances", "entries", "holds", "mock_exams", "bookings", "idempotency_keys", "outbox",
)  # fmt: skip
_ROWS_AT_ONCE = 500
# Enough to act on; beyond that only the number matters, and memory stays bounded.
_MOST_LISTED = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """What does not hold: the rule's name, the row, and the numbers that disagree."""

    invariant: str
    object: str
    problem: str


@dataclass(frozen=True, slots=True)
class Lag:
    """How far HubSpot is behind. No violation: it is worked off, or waits for a person."""

    waiting: int
    oldest_s: float
    dead_letters: int
    open_conflicts: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    `violations` and `warnings` list at most a thousand per rule; `violation_counts` says per broken rule how
    many there are. `counts` says how many rows of each kind were looked at.
    """

    violations: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    violation_counts: Mapping[str, int]
    lag: Lag
    counts: Mapping[str, int]

    def ok(self, *, strict: bool = False) -> bool:
        """Whether every number is right; `strict` also wants nothing waiting, dead or in conflict."""
        behind = self.lag.waiting or self.lag.dead_letters or self.lag.open_conflicts
        return not self.violations and not (strict and behind)


async def verify(db: Database, *, on_progress: Callable[[str], None] | None = None) -> Report:
    """Looks at everything in one read-only transaction and a bounded amount of memory.

    `on_progress` hears the name of each rule before it is checked. Raises DatabaseUnavailable.
    """
    violations: list[Finding] = []
    counts: dict[str, int] = {}
    async with db.connection() as connection:
        await connection.execute(sql("verify/begin"))
        await connection.execute(sql("verify/take_time"))
        for name in INVARIANTS:
            if on_progress is not None:
                on_progress(name)
            found, number = await _findings(connection, name)
            violations += found
            if number:
                counts[name] = number
        warnings, _ = await _findings(connection, _WARNING)
        lag = await _row(connection, "verify/lag")
        looked_at = await _row(connection, "verify/counts")
        await connection.execute(sql("verify/end"))
    return Report(
        violations=tuple(violations),
        warnings=tuple(warnings),
        violation_counts=counts,
        lag=Lag(*lag),
        counts=dict(zip(_COUNTED, looked_at, strict=True)),
    )


async def _findings(connection: Any, name: str) -> tuple[list[Finding], int]:
    listed: list[Finding] = []
    number = 0
    async with connection.cursor(name) as cursor:
        await cursor.execute(sql(f"verify/{name}"))
        while rows := await cursor.fetchmany(_ROWS_AT_ONCE):
            number += len(rows)
            listed += [Finding(name, *row) for row in rows[: _MOST_LISTED - len(listed)]]
    return listed, number


async def _row(connection: Any, query: str) -> tuple[Any, ...]:
    cursor = await connection.execute(sql(query))
    return tuple(await cursor.fetchone())
