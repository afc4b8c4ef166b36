"""Signed tokens of one kind: claims that only this server can have made, good until they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import jwt

from tallybook.api.secrets import derive_key
from tallybook.domain.errors import Unauthenticated

_ALGORITHM = "HS256"
_ISSUER = "tallybook"
_LONGEST_TOKEN = 2048


class Signer:
    """Signs and opens tokens for one audience, with a key of that purpose alone."""

    def __init__(
        self,
        secret_key: str,
        *,
        previous: str | None,
        purpose: str,
        audience: str,
        claims: Sequence[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._keys = [
            derive_key(secret, purpose=purpose) for secret in (secret_key, previous) if secret is not None
        ]
        self._audience = audience
        self._required = [*claims, "aud", "iss", "iat", "exp"]
        self._clock = clock

    def sign(self, claims: Mapping[str, Any], *, lifetime: timedelta) -> tuple[str, datetime]:
        """A new token and when it ends."""
        now = self._clock()
        ends_at = (now + lifetime).replace(microsecond=0)
        signed = {
            **claims,
            "aud": self._audience,
            "iss": _ISSUER,
            "iat": int(now.timestamp()),
            "exp": int(ends_at.timestamp()),
        }
        return jwt.encode(signed, self._keys[0], algorithm=_ALGORITHM), ends_at

    def open(self, token: str) -> dict[str, Any]:
        """The claims of a token that was signed here, whenever it ends or ended. Raises Unauthenticated."""
        if len(token) > _LONGEST_TOKEN:
            raise Unauthenticated
        for key in self._keys:
            try:
                # Times are compared with our own clock by the caller, one clock for issuing and for checking.
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=[_ALGORITHM],
                    audience=self._audience,
                    issuer=_ISSUER,
                    options={"require": self._required, "verify_exp": False, "verify_iat": False},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError:
                break
            if isinstance(claims["exp"], int):
                return claims
            break
        raise Unauthenticated
