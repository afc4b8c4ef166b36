"""Cross-origin answers for the old front end, which runs elsewhere than the API. Pair mode only."""

from __future__ import annotations

from collections.abc import Mapping

from tallybook.api.replies import Header

_ALLOWED_HEADERS = b"Content-Type, Authorization, Idempotency-Key, X-Idempotency-Key, X-Request-Id"
_EXPOSED_HEADERS = b"X-Request-Id, Retry-After, Idempotency-Replayed"
_PREFLIGHT_S = b"600"
_VARY: Header = (b"vary", b"Origin")


class Cors:
    """Says to browsers which origins may read answers. No cookies are involved, so `*` gives nothing away."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._anywhere = "*" in origins
        self._origins = frozenset(origin.rstrip("/").encode() for origin in origins)

    def headers(self, request_headers: Mapping[bytes, bytes]) -> tuple[Header, ...]:
        """For each answer."""
        origin = request_headers.get(b"origin")
        if origin is None or not (self._anywhere or origin in self._origins):
            return (_VARY,)
        return (
            _VARY,
            (b"access-control-allow-origin", b"*" if self._anywhere else origin),
            (b"access-control-expose-headers", _EXPOSED_HEADERS),
        )

    def preflight(self, request_headers: Mapping[bytes, bytes], methods: bytes) -> tuple[Header, ...]:
        """For the answer to OPTIONS, beyond `headers`."""
        if b"access-control-request-method" not in request_headers:
            return ()
        return (
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", _ALLOWED_HEADERS),
            (b"access-control-max-age", _PREFLIGHT_S),
        )
