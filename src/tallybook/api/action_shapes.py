"""What `data` holds in the answers about metered actions, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from tallybook.api.answer_shapes import Balances, HubSpotId, Instant

Credits = Annotated[dict[str, int], Meta(description="Credits by credit type.")]


class Cost(Struct):
    """What one use of an action costs."""

    action: str
    credit_type: str
    credits: int


class Pack(Struct):
    """What can be bought."""

    pack: str
    credit_type: str
    credits: int


class Costs(Struct):
    """The price list."""

    actions: list[Cost]
    packs: list[Pack]


class PaidAction(Struct):
    """One action and what it took."""

    action: str
    quantity: int
    credit_type: str
    credits: int


class ActionCheck(Struct):
    """Answered with 200 whether or not the contact can pay."""

    allowed: bool
    needed: Credits
    available: Credits
    what_helps: str | None
    as_of: Instant


class Charge(Struct, kw_only=True):
    """What was taken."""

    contact_id: UUID
    entry_ids: list[int]
    charged: Credits
    actions: list[PaidAction]
    balances: Balances
    dry_run: bool | UnsetType = UNSET


class Hold(Struct, kw_only=True):
    """What is set aside, or how that ended."""

    id: UUID | UnsetType = UNSET
    contact_id: UUID
    held: Credits
    actions: list[PaidAction]
    status: Literal["open", "captured", "released", "expired"]
    expires_at: Instant
    balances: Balances
    dry_run: bool | UnsetType = UNSET


class ClosedHold(Hold, kw_only=True):
    """A hold that has just been closed, and what it took."""

    entry_ids: list[int]
    charged: Credits


class Refund(Struct, kw_only=True):
    """What was given back."""

    entry_id: int | UnsetType = UNSET
    reverses_entry_id: int
    contact_id: UUID
    credit_type: str
    credits_restored: int
    balances: Balances
    dry_run: bool | UnsetType = UNSET


class KnownContact(Struct, kw_only=True):
    """The person, and whether they were made by this request."""

    id: UUID | UnsetType = UNSET
    created: bool
    hubspot_id: HubSpotId
    balances: Balances
    dry_run: bool | UnsetType = UNSET


class OpenHold(Struct):
    """Credits set aside, until when."""

    id: UUID
    expires_at: Instant


class ContactCredits(Struct):
    """What a contact has. A mirrored balance that is not known yet is left out."""

    contact_id: UUID
    balances: Balances
    held: Credits
    holds: list[OpenHold]
    source: Literal["database"]
    as_of: Instant


class Entry(Struct):
    """One line of the ledger. `action` is the metered action, else the same as `reason`."""

    id: int
    action: str
    reason: str
    credit_type: str
    delta: int
    credits_used: int
    balance_after: int
    quantity: int | None
    metadata: dict[str, Any] | None
    reverses_entry_id: int | None
    booking_id: str | None
    created_at: Instant


class EntryPages(Struct):
    """Where this page lies."""

    page: int
    per_page: int
    total: int
    pages: int


class Entries(Struct):
    """One page of the ledger, newest first."""

    data: list[Entry]
    pagination: EntryPages
