"""Tallybook's answers as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Action:
    """A metered action of the catalog, `quantity` times."""

    name: str
    quantity: int = 1


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a contact could pay at that moment. Display only: a hold is what to rely on."""

    allowed: bool
    needed: Mapping[str, int]
    available: Mapping[str, int]
    what_helps: str | None


@dataclass(frozen=True, slots=True)
class Charge:
    """Credits taken. `balances` is what can be spent now, by credit type."""

    entry_ids: tuple[int, ...]
    charged: Mapping[str, int]
    balances: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Hold:
    """Credits set aside until `expires_at`. In a dry run `id` is empty."""

    id: str
    held: Mapping[str, int]
    expires_at: datetime
    balances: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ClosedHold:
    """How a hold ended: `captured` or `released`, and what that took."""

    id: str
    status: str
    entry_ids: tuple[int, ...]
    charged: Mapping[str, int]
    balances: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Refund:
    """Credits given back."""

    entry_id: int | None
    credits_restored: int
    balances: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Contact:
    """A person. `created`: by this request."""

    id: str
    created: bool
    balances: Mapping[str, int]


def check_of(data: Mapping[str, Any]) -> Check:
    """The answer of a check."""
    return Check(data["allowed"], data["needed"], data["available"], data.get("what_helps"))


def charge_of(data: Mapping[str, Any]) -> Charge:
    """The answer of a charge."""
    return Charge(tuple(data["entry_ids"]), data["charged"], data["balances"])


def hold_of(data: Mapping[str, Any]) -> Hold:
    """The answer of a hold."""
    expires_at = datetime.fromisoformat(data["expires_at"])
    return Hold(data.get("id", ""), data["held"], expires_at, data["balances"])


def closed_of(data: Mapping[str, Any]) -> ClosedHold:
    """The answer of a capture or a release."""
    return ClosedHold(
        data.get("id", ""), data["status"], tuple(data["entry_ids"]), data["charged"], data["balances"]
    )


def refund_of(data: Mapping[str, Any]) -> Refund:
    """The answer of a refund."""
    return Refund(data.get("entry_id"), data["credits_restored"], data["balances"])


def contact_of(data: Mapping[str, Any]) -> Contact:
    """The answer about a person."""
    return Contact(data.get("id", ""), data["created"], data["balances"])
