"""What other services tell us: checked, stored and answered at once; the work is done elsewhere."""

from __future__ import annotations

from dataclasses import asdict

import msgspec

from tallybook.api.problems import invalid
from tallybook.api.replies import Reply, success, success_of
from tallybook.api.route import Call
from tallybook.api.services import Services
from tallybook.domain.errors import NotFound, Unauthenticated
from tallybook.domain.payments import check_signature, parse_event
from tallybook.hubspot.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, is_signed
from tallybook.usecases.receive_events import receive_events
from tallybook.usecases.take_payment_event import take_payment_event

# A delivery has at most a hundred events of a few hundred bytes, and now and then a long text among them.
LARGEST_DELIVERY_BYTES = 512 * 1024


async def hubspot_events(services: Services, call: Call) -> Reply:
    """Keep what happened in HubSpot as hints for the worker."""
    config = services.deps.config
    if config.hubspot_client_secret is None or config.public_url is None:
        raise NotFound
    if not is_signed(
        config.hubspot_client_secret,
        method=call.route.method,
        url=config.public_url + call.route.path,
        body=call.body,
        signature=call.headers.get(SIGNATURE_HEADER),
        timestamp=call.headers.get(TIMESTAMP_HEADER),
        now=services.deps.clock(),
    ):
        raise Unauthenticated("This request has no valid signature of HubSpot's.")
    received = asdict(await receive_events(services.deps.db, call.body, types=config.hubspot_types))
    services.metrics.count_events(**received)
    return success_of(received)


async def stripe_event(services: Services, call: Call) -> Reply:
    """Grant what was paid, take back what was refunded or disputed. Stripe repeats what is refused here."""
    config = services.deps.config
    if config.stripe_webhook_secret is None:
        raise NotFound
    signature = call.headers.get(b"stripe-signature", b"").decode("latin-1")
    check_signature(signature, call.body, secret=config.stripe_webhook_secret, now=services.deps.clock())
    try:
        event = msgspec.json.decode(call.body, type=dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("body", "is no JSON object") from None
    return success((await take_payment_event(services.deps.db, parse_event(event))).data)
