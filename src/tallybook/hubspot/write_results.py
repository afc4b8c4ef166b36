"""What became of a write: done, refused before it was applied, or nobody knows; and whose fault it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from tallybook.hubspot.errors import ErrorBody, parse_error, retry_after_s, spoken

_EXISTING_ID = re.compile(r"Existing ID: (\d+)")
_MIGRATION_S = 300.0
_TEN_SECONDS = 10.0


class Fault(StrEnum):
    """Whose fault a refusal is, and so what it stops: one record, this attempt, or the whole lane."""

    RECORD = "record"
    """HubSpot will not have these values of this record."""
    TAKEN = "taken"
    """Another record has one of its unique values; for a contact HubSpot says which."""
    GONE = "gone"
    """A record with this id does not exist there, or no longer."""
    LOCKED = "locked"
    """Something else is changing the record: in two seconds or more again."""
    BUSY = "busy"
    """No slot of our own budget was free in time; nothing was sent."""
    LIMIT = "limit"
    DAILY_LIMIT = "daily_limit"
    UNAUTHORISED = "unauthorised"
    FORBIDDEN = "forbidden"
    MIGRATING = "migrating"
    UNKNOWN_PROPERTY = "unknown_property"
    READ_ONLY_PROPERTY = "read_only_property"
    UNREACHABLE = "unreachable"
    """No connection: nothing was sent."""
    SETUP = "setup"
    """HubSpot knows no such address or object type."""

    @property
    def is_of_one_record(self) -> bool:
        """Whether one record among many can be the reason, so that splitting the batch finds it."""
        return self in {Fault.RECORD, Fault.TAKEN, Fault.GONE, Fault.LOCKED}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing was written. `words` are HubSpot's own; `existing_id` is the contact that has the e-mail."""

    fault: Fault
    words: str
    wait_s: float | None = None
    existing_id: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody knows whether it was written: no answer, a cut connection, or a failure of HubSpot's."""

    words: str


class WrittenRecord(msgspec.Struct, frozen=True, rename="camel"):
    """One record of a batch's answer."""

    id: str
    updated_at: datetime | None = None
    properties: dict[str, str | None] = {}
    new: bool | None = None
    object_write_trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A batch that was carried out: the records written and those refused, by the keys they were sent under.

    What is in neither was not accounted for by HubSpot.
    """

    records: Mapping[str, WrittenRecord] = field(default_factory=dict)
    refusals: Mapping[str, Refusal] = field(default_factory=dict)


WriteOutcome = Written | Refusal | Unknown


class BatchAnswer(msgspec.Struct, rename="camel"):
    """The body of a batch's answer, as far as it is read."""

    results: list[WrittenRecord] = []
    errors: list[Any] = []


def refusal_of(status: int, *, body: bytes, headers: Mapping[str, str], token: str) -> Refusal:
    """What an answer from 300 to 499 means."""
    said = parse_error(body)
    words = spoken(said, token=token) or f"HTTP {status}"
    wait_s = retry_after_s(headers)
    if status == 429:
        if said.policy_name == "DAILY":
            return Refusal(Fault.DAILY_LIMIT, words)
        return Refusal(
            Fault.LIMIT, words, wait_s or (1.0 if said.policy_name == "SECONDLY" else _TEN_SECONDS)
        )
    simple = {
        401: Fault.UNAUTHORISED,
        403: Fault.FORBIDDEN,
        423: Fault.LOCKED,
        477: Fault.MIGRATING,
    }.get(status)
    if simple is not None:
        return Refusal(simple, words, wait_s or (_MIGRATION_S if simple is Fault.MIGRATING else None))
    if status in (400, 409, 413, 414, 422) or (status == 404 and said.category == "OBJECT_NOT_FOUND"):
        return _refusal_of_values(said, words, status=status)
    return Refusal(Fault.SETUP, words)


def batch_error(raw: object) -> ErrorBody:
    """One error of a batch's answer; one of another shape becomes the message."""
    try:
        return msgspec.convert(raw, ErrorBody)
    except msgspec.ValidationError:
        return ErrorBody(message=str(raw))


def refusal_of_record(said: ErrorBody, *, token: str) -> Refusal:
    """What one error of a batch's answer means."""
    return _refusal_of_values(said, spoken(said, token=token) or said.category or "refused", status=None)


def _refusal_of_values(said: ErrorBody, words: str, *, status: int | None) -> Refusal:
    existing = _EXISTING_ID.search(words)
    if existing is not None:
        return Refusal(Fault.TAKEN, words, existing_id=existing[1])
    return Refusal(_fault_of_values(said, status=status), words)


def _fault_of_values(said: ErrorBody, *, status: int | None) -> Fault:
    # Some answers say the code only inside the message.
    message = said.message or ""
    codes = {problem.code for problem in said.errors}
    faults = (
        (Fault.UNKNOWN_PROPERTY, "PROPERTY_DOESNT_EXIST" in codes or '"PROPERTY_DOESNT_EXIST"' in message),
        (Fault.READ_ONLY_PROPERTY, "READ_ONLY_VALUE" in codes or '"READ_ONLY_VALUE"' in message),
        (Fault.GONE, said.category == "OBJECT_NOT_FOUND" or status == 404),
        (Fault.LOCKED, said.category == "RESOURCE_LOCKED"),
        (Fault.SETUP, "Unable to infer object type" in message),
        (Fault.TAKEN, "CONFLICTING_UNIQUE_VALUE" in codes or said.category == "CONFLICT" or status == 409),
    )
    return next((fault for fault, holds in faults if holds), Fault.RECORD)
