"""The answers of deciding functions, and the names by which PostgreSQL says no, as domain errors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors as pg

from tallybook.domain import errors
from tallybook.domain.errors import Refusal, TallybookError


@dataclass(frozen=True, slots=True)
class Answer:
    """A granted request.

    `data` is JSON text as PostgreSQL made it. `outcome` is `created`, `already` (recognised; nothing was
    done) or `ok`. `lookup` says whether the student was stored (`hit`) or asked from HubSpot (`miss`).
    """

    data: bytes
    outcome: str = "ok"
    replayed: bool = False
    lookup: str = "hit"


class StudentNotStored(Refusal):
    """This student is not stored, or not every balance: HubSpot has to be asked. No client ever sees this."""

    code = "STUDENT_NOT_STORED"


def _refusals(root: type[TallybookError]) -> dict[str, type[Refusal]]:
    found: dict[str, type[Refusal]] = {}
    for child in root.__subclasses__():
        found.update(_refusals(child))
        if issubclass(child, Refusal) and child.__module__ == errors.__name__:
            # The class nearest the root keeps a code that a narrower class shares.
            found[child.code] = child
    return found


_BY_CODE = _refusals(TallybookError) | {
    "CONTACT_UNKNOWN": StudentNotStored,
    "BALANCE_UNKNOWN": StudentNotStored,
}

# What a race can still break when a rule was checked a moment earlier, or by a writer that skipped the rules.
_BY_CONSTRAINT: dict[str, type[TallybookError]] = {
    "mock_exams_seats_within_capacity": errors.ExamFull,
    "bookings_one_live_per_exam": errors.DuplicateBooking,
    "bookings_one_live_per_day_and_type": errors.DuplicateBooking,
    "bookings_no_overlap": errors.TimeConflict,
    "credit_balances_balance_is_not_negative": errors.BalanceTooLow,
    "credit_balances_held_within_balance": errors.BalanceTooLow,
    "credit_entries_balance_after_is_not_negative": errors.BalanceTooLow,
    "credit_entries_reverses_entry_id_key": errors.AlreadyRefunded,
}


def refusal(code: str, details: dict[str, Any] | None) -> TallybookError:
    """The domain error of one of our codes."""
    return _BY_CODE.get(code, Refusal)(**(details or {}))


def domain_error(error: psycopg.Error) -> TallybookError | None:
    """The domain error behind a database error, or None when it is not ours to explain."""
    if isinstance(error, pg.LockNotAvailable | pg.DeadlockDetected | pg.SerializationFailure):
        return errors.LockTimeout()
    if isinstance(error, pg.IntegrityError):
        known = _BY_CONSTRAINT.get(error.diag.constraint_name or "")
        return known() if known else None
    if isinstance(error, pg.RaiseException):
        code = error.diag.message_primary or ""
        known = _BY_CODE.get(code)
        return known(**json.loads(error.diag.message_detail or "{}")) if known else None
    return errors.DatabaseUnavailable() if _is_unavailable(error) else None


def _is_unavailable(error: psycopg.Error) -> bool:
    if isinstance(error, pg.QueryCanceled):
        return True
    # 08: connection; 57P: the server is going down or starting; 53: out of connections, memory or disk.
    state = error.sqlstate
    if state is not None:
        return state[:2] in {"08", "53"} or state[:3] == "57P"
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
