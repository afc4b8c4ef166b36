"""What other services tell us: checked, stored and answered at once; the work is done elsewhere."""

from __future__ import annotations

from dataclasses import asdict

from tallybook.api.replies import Reply, success_of
from tallybook.api.route import Call
from tallybook.api.services import Services
from tallybook.domain.errors import NotFound, Unauthenticated
from tallybook.hubspot.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, is_signed
from tallybook.usecases.receive_events import receive_events

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
