"""Alerts as signed webhooks: one POST of JSON for each that opens and each that is over.

Whoever receives them checks `X-Tallybook-Signature`: `sha256=` and the hexadecimal HMAC-SHA256, with the
common secret, of `X-Tallybook-Timestamp` (seconds since 1970) followed by the body.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from tallybook.domain.errors import SetupError, Unavailable

_TIMEOUT_S = 10.0
_LOCAL = ("127.0.0.1", "::1", "localhost")


class AlertUnavailable(Unavailable):
    """The receiver of alerts did not take one. It is sent again later."""

    code = "ALERT_UNAVAILABLE"
    retry_after_s = 30


def signature(secret: str, *, timestamp: str, body: bytes) -> str:
    """What `X-Tallybook-Signature` has to be."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + body, hashlib.sha256).hexdigest()


class AlertSender:
    """Sends alerts to one address. Raises SetupError when that is none."""

    def __init__(self, url: str, *, secret: str, clock: Callable[[], float] = time.time) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SetupError(
                "The address for alerts cannot be read.",
                hint="Write TALLYBOOK_ALERT_URL as https://hooks.example.com/tallybook.",
            )
        self._url = url
        self._secret = secret
        self._clock = clock
        # Redirects are not followed: a signed message is for the address that was named.
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=parts.hostname not in _LOCAL)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Hands one message over; any 2xx means that it arrived. Raises AlertUnavailable."""
        body = msgspec.json.encode(message)
        timestamp = str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "tallybook",
            "X-Tallybook-Timestamp": timestamp,
            "X-Tallybook-Signature": signature(self._secret, timestamp=timestamp, body=body),
        }
        try:
            answer = await self._http.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise AlertUnavailable(problem=type(error).__name__) from error
        if not answer.is_success:
            raise AlertUnavailable(problem=f"status {answer.status_code}")
