"""What the addresses for metered actions take."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from tallybook.api.reading import Shape
from tallybook.api.requests import Email, PageNumber, PageSize
from tallybook.usecases.hold_credits import LONGEST_HOLD_S, SHORTEST_HOLD_S, USUAL_HOLD_S
from tallybook.usecases.metered import LARGEST_QUANTITY

ContactName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=340,
        description="A UUID, a HubSpot id, `student:1599005` or `email:a@b.c`.",
        examples=["email:ada@example.org"],
    ),
]
ActionName = Annotated[str, Meta(min_length=1, max_length=100, examples=["docx_processing"])]
Quantity = Annotated[int, Meta(ge=1, le=LARGEST_QUANTITY)]
Name = Annotated[str, Meta(min_length=1, max_length=100)]
Key = Annotated[
    str, Meta(min_length=1, max_length=255, pattern="^[!-~]+$", description="As the header Idempotency-Key.")
]
Metadata = Annotated[
    dict[str, Any], Meta(description="Kept beside the entry and shown in the history; at most 8 KiB.")
]


class ActionItem(Struct, frozen=True, forbid_unknown_fields=True):
    """One action of the catalog, so many times."""

    action: ActionName
    quantity: Quantity = 1


class Payment(Shape, frozen=True, kw_only=True):
    """Who pays, and what for: one `action`, or several `actions`, of which all are paid or none."""

    contact: ContactName
    action: ActionName | None = None
    quantity: Quantity = 1
    actions: Annotated[list[ActionItem], Meta(min_length=1, max_length=50)] | None = None


class CheckBody(Payment, frozen=True, kw_only=True):
    """Could this be paid now?"""


class ChargeBody(Payment, frozen=True, kw_only=True):
    """Take the credits now."""

    idempotency_key: Key | None = None
    metadata: Metadata | None = None
    dry_run: bool = False


class HoldBody(Payment, frozen=True, kw_only=True):
    """Set the credits aside until the work is done."""

    expires_in_s: Annotated[int, Meta(ge=SHORTEST_HOLD_S, le=LONGEST_HOLD_S)] = USUAL_HOLD_S
    idempotency_key: Key | None = None
    metadata: Metadata | None = None
    dry_run: bool = False


class CaptureBody(Shape, frozen=True, kw_only=True):
    """Take what was held, or so many credits of it; the rest is given back."""

    credits: Annotated[int, Meta(ge=1, le=2_147_483_647)] | None = None
    idempotency_key: Key | None = None
    metadata: Metadata | None = None
    dry_run: bool = False


class ReleaseBody(Shape, frozen=True, kw_only=True):
    """Give back what was held."""

    idempotency_key: Key | None = None
    dry_run: bool = False


class RefundBody(Shape, frozen=True, kw_only=True):
    """Give back what one charge or capture took."""

    entry_id: Annotated[int, Meta(ge=1, le=9_223_372_036_854_775_807)]
    idempotency_key: Key | None = None
    dry_run: bool = False


class CreateContactBody(Shape, frozen=True, kw_only=True):
    """A person you know; found by e-mail, else created."""

    email: Email
    firstname: Name | None = None
    lastname: Name | None = None
    external_id: (
        Annotated[str, Meta(min_length=1, max_length=200, description="Your own id for this person.")] | None
    ) = None
    dry_run: bool = False


class EntriesQuery(Shape, frozen=True, kw_only=True):
    """Which entries, and which page of them."""

    page: PageNumber = 1
    per_page: PageSize = 20
    action_filter: Annotated[str, Meta(max_length=100)] | None = None
