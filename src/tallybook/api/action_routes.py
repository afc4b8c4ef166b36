"""The addresses for other programs: metered actions, their people and their prices."""

from __future__ import annotations

from tallybook.api import action_handlers as handlers
from tallybook.api import action_requests as asks
from tallybook.api import action_shapes as shapes
from tallybook.api.callers import Access
from tallybook.api.route import OtherAnswer, Route
from tallybook.domain import errors

_CONTACT_ERRORS = (errors.ContactNotFound, errors.AmbiguousContact)
_PAYMENT_ERRORS = (
    *_CONTACT_ERRORS,
    errors.ActionNotFound,
    errors.InsufficientCredits,
    errors.CrmBusy,
    errors.LockTimeout,
)
_HOLD_ERRORS = (errors.HoldNotFound, errors.HoldClosed, errors.LockTimeout)

ACTION_ROUTES = (
    Route(
        method="GET",
        path="/api/credits/costs",
        access=Access.PUBLIC,
        handler=handlers.costs,
        summary="What each action costs, and which packs there are",
        answer=shapes.Costs,
        tag="metered actions",
    ),
    Route(
        method="POST",
        path="/api/contacts",
        access=Access.APPLICATION,
        handler=handlers.contact,
        summary="Find a person by e-mail, or create them with the welcome credits",
        body=asks.CreateContactBody,
        answer=shapes.KnownContact,
        status=201,
        also=(OtherAnswer(200, "There already, or a dry run.", shapes.KnownContact),),
        errors=(errors.AmbiguousContact, errors.LockTimeout),
        tag="metered actions",
    ),
    Route(
        method="GET",
        path="/api/contacts/{contact}/credits",
        access=Access.APPLICATION,
        handler=handlers.contact_credits,
        summary="All balances of a contact, from the database",
        answer=shapes.ContactCredits,
        errors=_CONTACT_ERRORS,
        tag="metered actions",
    ),
    Route(
        method="GET",
        path="/api/contacts/{contact}/entries",
        access=Access.APPLICATION,
        handler=handlers.contact_entries,
        summary="The ledger of a contact, newest first",
        query=asks.EntriesQuery,
        answer=shapes.Entries,
        errors=_CONTACT_ERRORS,
        tag="metered actions",
    ),
    Route(
        method="POST",
        path="/api/credits/check",
        access=Access.APPLICATION,
        handler=handlers.check,
        summary="Could the contact pay for this now?",
        body=asks.CheckBody,
        answer=shapes.ActionCheck,
        errors=(*_CONTACT_ERRORS, errors.ActionNotFound, errors.CrmBusy),
        allowed_observing=True,
        tag="metered actions",
    ),
    Route(
        method="POST",
        path="/api/credits/charge",
        access=Access.APPLICATION,
        handler=handlers.charge,
        summary="Take the credits of one action or several, all or none",
        body=asks.ChargeBody,
        answer=shapes.Charge,
        status=201,
        also=(OtherAnswer(200, "A dry run.", shapes.Charge),),
        errors=_PAYMENT_ERRORS,
        idempotent=True,
        tag="metered actions",
    ),
    Route(
        method="POST",
        path="/api/credits/holds",
        access=Access.APPLICATION,
        handler=handlers.hold,
        summary="Set credits aside until the work is done",
        body=asks.HoldBody,
        answer=shapes.Hold,
        status=201,
        also=(OtherAnswer(200, "A dry run.", shapes.Hold),),
        errors=_PAYMENT_ERRORS,
        idempotent=True,
        tag="metered actions",
    ),
    Route(
        method="POST",
        path="/api/credits/holds/{hold}/capture",
        access=Access.APPLICATION,
        handler=handlers.capture,
        summary="Take what was held, or a part of it; the rest is given back",
        body=asks.CaptureBody,
        answer=shapes.ClosedHold,
        errors=_HOLD_ERRORS,
        idempotent=True,
        tag="metered actions",
    ),
    Route(
        method="POST",
        path="/api/credits/holds/{hold}/release",
        access=Access.APPLICATION,
        handler=handlers.release,
        summary="Give back what was held",
        body=asks.ReleaseBody,
        answer=shapes.ClosedHold,
        errors=_HOLD_ERRORS,
        idempotent=True,
        tag="metered actions",
    ),
    Route(
        method="POST",
        path="/api/credits/refund",
        access=Access.APPLICATION,
        handler=handlers.refund,
        summary="Give back what one of your charges or captures took, once",
        body=asks.RefundBody,
        answer=shapes.Refund,
        status=201,
        also=(OtherAnswer(200, "A dry run.", shapes.Refund),),
        errors=(errors.EntryNotFound, errors.AlreadyRefunded, errors.LockTimeout),
        idempotent=True,
        tag="metered actions",
    ),
)
