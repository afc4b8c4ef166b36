"""A client's idempotency key, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A key a client sent.

    `route` is method and route template; `fingerprint` the SHA-256 over method, path and the canonical parsed
    body. Kept for 24 hours per (credential, contact acted for, route, key).
    """

    key: str
    route: str
    fingerprint: bytes


def key_params(credential: str, idempotency: Idempotency | None) -> dict[str, Any]:
    """The parameters every deciding function takes for it; without a key nothing is stored."""
    return {
        "credential": credential,
        "route": idempotency.route if idempotency else None,
        "key": idempotency.key if idempotency else None,
        "fingerprint": idempotency.fingerprint if idempotency else None,
    }
