"""Grants what was bought and takes back what was refunded or disputed, once per event and payment."""

from __future__ import annotations

from tallybook.domain.payments import PaymentEvent
from tallybook.postgres.answers import Answer
from tallybook.postgres.pool import Database


async def take_payment_event(db: Database, event: PaymentEvent) -> Answer:
    """{outcome: done | nothing_to_do}. A repeated event changes nothing.

    Raises ValidationError (unknown pack), ContactNotFound, AmbiguousContact and EntryNotFound (a refund
    before its payment); these are written down and alert, and the event may come again. LockTimeout.
    """
    params = {
        "event": event.id,
        "kind": event.kind.value,
        "payment": event.payment_id,
        "intent": event.intent,
        "contact": event.contact or "",
        "pack": event.pack,
        "part": event.part,
    }
    return await db.answer("take_payment_event", params)
