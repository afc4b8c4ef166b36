"""Webhook deliveries: where they go is set at the back door."""

import msgspec

from hubspot_simulator.portal import Portal


class Subscription(msgspec.Struct, forbid_unknown_fields=True):
    """Where to send events, signed with `secret`."""

    url: str
    secret: str


class WebhookSender:
    """Sends what changed; without a subscription it sends nothing."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self.subscription: Subscription | None = None

    def subscribe(self, subscription: Subscription | None) -> None:
        """Set or clear the receiver."""
        self.subscription = subscription

    def flush(self) -> None:
        """Queue what the last call changed."""

    async def close(self) -> None:
        """Stop sending."""
