"""Sends webhooks as HubSpot does: signed batches, in no sure order, retried, and as badly as a test asks."""

import asyncio
import base64
import hashlib
import hmac
from random import Random
from typing import Any

import httpx
import msgspec

from hubspot_simulator.portal import Event, Portal

BATCH_MAX = 100
CONCURRENT_MAX = 10
TIMEOUT_S = 5.0
ATTEMPTS_MAX = 11


class Subscription(msgspec.Struct, forbid_unknown_fields=True):
    """Where events go, signed with `secret`, and how badly they get there.

    `duplicate` and `drop` are shares of the events (0..1), `shuffle` mixes the order up, `delay_ms` holds
    each batch back, `retry_ms` is the first wait after an answer other than 2xx (HubSpot's is minutes).
    """

    url: str
    secret: str
    duplicate: float = 0.0
    drop: float = 0.0
    shuffle: bool = False
    delay_ms: float = 0.0
    retry_ms: float = 200.0
    app_id: int = 1_000_000
    batch: int = BATCH_MAX


def signature_v3(secret: str, url: str, body: bytes, timestamp: str) -> str:
    """The value of `X-HubSpot-Signature-v3` for a POST."""
    text = b"POST" + url.encode() + body + timestamp.encode()
    return base64.b64encode(hmac.new(secret.encode(), text, hashlib.sha256).digest()).decode()


class WebhookSender:
    """Collects what a call changed and sends it once the call has taken effect."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self._subscription: Subscription | None = None
        self._pending: list[dict[str, Any]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._client: httpx.AsyncClient | None = None
        self._gate = asyncio.Semaphore(CONCURRENT_MAX)
        self._random = Random(1)  # noqa: S311 - a test wants the same disorder twice.
        self._next_event = 100

    def subscribe(self, subscription: Subscription | None) -> None:
        """Set or clear the receiver; deliveries under way are dropped."""
        self._subscription = subscription
        self._pending.clear()
        for task in self._tasks:
            task.cancel()
        self.portal.listener = None if subscription is None else self._note

    def _note(self, event: Event) -> None:
        assert self._subscription is not None
        self._next_event += 1
        self._pending.append(
            {
                "eventId": self._next_event,
                "subscriptionId": 1,
                "portalId": self.portal.settings.portal_id,
                "appId": self._subscription.app_id,
                "occurredAt": event.at_ms,
                "subscriptionType": f"{'object' if event.kind.custom else 'contact'}.{event.name}",
                "attemptNumber": 0,
                **({} if event.name == "associationChange" else {"objectId": event.record_id}),
                "objectTypeId": event.kind.type_id,
                "changeSource": event.source.kind,
                "sourceId": event.source.source_id,
                **event.fields,
            }
        )

    def flush(self) -> None:
        """Send what was noted since the last time, in the background."""
        wanted, events = self._subscription, self._pending
        if wanted is None or not events:
            return
        self._pending = []
        events = [one for one in events if self._random.random() >= wanted.drop]
        events += [one for one in events if self._random.random() < wanted.duplicate]
        if wanted.shuffle:
            self._random.shuffle(events)
        for start in range(0, len(events), wanted.batch):
            task = asyncio.create_task(self._deliver(wanted, events[start : start + wanted.batch]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, wanted: Subscription, events: list[dict[str, Any]]) -> None:
        shuffle_ms = self._random.random() * 50 if wanted.shuffle else 0.0
        await asyncio.sleep((wanted.delay_ms + shuffle_ms) / 1000)
        for attempt in range(ATTEMPTS_MAX):
            async with self._gate:
                if await self._post(wanted, [{**one, "attemptNumber": attempt} for one in events]):
                    self.portal.stats.webhooks_sent += 1
                    return
            self.portal.stats.webhooks_failed += 1
            await asyncio.sleep(wanted.retry_ms / 1000 * 2**attempt * (0.5 + self._random.random()))

    async def _post(self, wanted: Subscription, events: list[dict[str, Any]]) -> bool:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        body = msgspec.json.encode(events)
        timestamp = str(self.portal.now_ms())
        headers = {
            "content-type": "application/json",
            "user-agent": "HubSpot Connect 2.0 (simulator)",
            "x-hubspot-request-timestamp": timestamp,
            "x-hubspot-signature-v3": signature_v3(wanted.secret, wanted.url, body, timestamp),
        }
        try:
            answer = await self._client.post(wanted.url, content=body, headers=headers)
        except httpx.HTTPError:
            return False
        return answer.is_success

    async def close(self) -> None:
        """Stop sending."""
        tasks = list(self._tasks)
        self.subscribe(None)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
