"""What a payment provider's events mean for credits, and whether they are genuine."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import sha256
from typing import Any

from tallybook.domain.errors import Unauthenticated, ValidationError

SIGNATURE_LASTS_S = 300

_DISPUTE = frozenset(("charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.closed"))


class PaymentKind(StrEnum):
    """What an event does to credits."""

    PAID = "paid"
    REFUND = "refund"
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_WON = "dispute_won"
    OTHER = "other"
    """Nothing: a payment that is still open or failed, a dispute that was lost, anything else."""


@dataclass(frozen=True, slots=True)
class PaymentEvent:
    """One event, as far as credits are concerned.

    `payment_id` is the checkout or, about a dispute, which one; `part` is how much of the price was
    refunded in all.
    """

    id: str
    kind: PaymentKind
    payment_id: str | None = None
    intent: str | None = None
    contact: str | None = None
    pack: str | None = None
    part: Decimal | None = None


def check_signature(header: str | None, body: bytes, *, secret: str, now: datetime) -> None:
    """Nothing when the body was signed with the secret within five minutes. Raises Unauthenticated.

    Stripe's scheme: `t=<seconds>,v1=<hex HMAC-SHA256 of "t.body">`, several v1 while a secret is replaced.
    """
    parts = [part.partition("=") for part in (header or "").split(",")]
    times = [value for name, _, value in parts if name.strip() == "t" and value.isascii() and value.isdigit()]
    given = [value.strip() for name, _, value in parts if name.strip() == "v1"]
    if len(times) != 1 or len(times[0]) > 12 or abs(now.timestamp() - int(times[0])) > SIGNATURE_LASTS_S:
        raise Unauthenticated
    wanted = hmac.new(secret.encode(), times[0].encode() + b"." + body, sha256).hexdigest()
    if not any(hmac.compare_digest(each.encode(), wanted.encode()) for each in given):
        raise Unauthenticated


def parse_event(event: Mapping[str, Any]) -> PaymentEvent:
    """What one of Stripe's events means. Raises ValidationError for what cannot be one."""
    event_id, name = _text(event, "id"), _text(event, "type")
    data = event.get("data")
    thing = data.get("object") if isinstance(data, Mapping) else None
    if not event_id or not name or not isinstance(thing, Mapping):
        raise ValidationError(field="body", problem="is no event")
    if name in ("checkout.session.completed", "checkout.session.async_payment_succeeded"):
        return _checkout(event_id, thing)
    intent = _id(thing.get("payment_intent"))
    if intent is None:
        # A charge that was made outside of any checkout of ours.
        return PaymentEvent(event_id, PaymentKind.OTHER)
    if name == "charge.refunded":
        amount, refunded = thing.get("amount"), thing.get("amount_refunded")
        if type(amount) is not int or type(refunded) is not int or not 0 <= refunded <= amount or not amount:
            raise ValidationError(field="data.object.amount_refunded", problem="is no part of amount")
        return PaymentEvent(
            event_id, PaymentKind.REFUND, intent=intent, part=Decimal(refunded) / Decimal(amount)
        )
    if name in _DISPUTE:
        status = _text(thing, "status") or ""
        return PaymentEvent(event_id, _dispute(name, status), payment_id=_text(thing, "id"), intent=intent)
    return PaymentEvent(event_id, PaymentKind.OTHER, intent=intent)


def _dispute(name: str, status: str) -> PaymentKind:
    # An inquiry (`warning_...`) moves no money; what it grows into tells of the funds.
    if name == "charge.dispute.closed":
        return PaymentKind.DISPUTE_WON if status == "won" else PaymentKind.OTHER
    return PaymentKind.OTHER if status.startswith("warning_") else PaymentKind.DISPUTE_OPENED


def _checkout(event_id: str, session: Mapping[str, Any]) -> PaymentEvent:
    payment_id, intent = _text(session, "id"), _id(session.get("payment_intent"))
    given = session.get("metadata")
    metadata = given if isinstance(given, Mapping) else {}
    if not payment_id:
        raise ValidationError(field="data.object.id", problem="is missing")
    if "pack" not in metadata:
        # The account may sell other things too.
        return PaymentEvent(event_id, PaymentKind.OTHER, payment_id=payment_id, intent=intent)
    if session.get("payment_status") != "paid":
        return PaymentEvent(event_id, PaymentKind.OTHER, payment_id=payment_id, intent=intent)
    return PaymentEvent(
        event_id,
        PaymentKind.PAID,
        payment_id=payment_id,
        intent=intent,
        contact=_text(metadata, "contact") or _text(session, "client_reference_id"),
        pack=_text(metadata, "pack"),
    )


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    return value.strip()[:255] or None if isinstance(value, str) else None


def _id(value: object) -> str | None:
    """An id, also of an object that was sent whole."""
    if isinstance(value, Mapping):
        value = value.get("id")
    return value[:255] if isinstance(value, str) and value else None
