"""A student's token: signed, good for 12 hours, bound to the contact's session epoch, which SQL compares."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import jwt

from tallybook.api.secrets import STUDENT_TOKENS, derive_key
from tallybook.domain.callers import Caller, CallerKind
from tallybook.domain.errors import Unauthenticated

LIFETIME = timedelta(hours=12)
CALLS_PER_MIN = 120

_ALGORITHM = "HS256"
_AUDIENCE = "tallybook-student"
_ISSUER = "tallybook"
_CLAIMS = ["sub", "epoch", "aud", "iss", "iat", "exp"]
_REMEMBERED_FOR_S = 60
_MOST_REMEMBERED = 10_000
_LONGEST_TOKEN = 2048
_ENDED = "Your session has ended. Please sign in again."


class StudentTokens:
    """Issues and verifies tokens. A verified one is remembered for a minute, because checking costs 30 us."""

    def __init__(self, secret_key: str, *, previous: str | None, clock: Callable[[], datetime]) -> None:
        self._keys = [
            derive_key(secret, purpose=STUDENT_TOKENS)
            for secret in (secret_key, previous)
            if secret is not None
        ]
        self._clock = clock
        self._verified: dict[bytes, tuple[Caller, float]] = {}

    def issue(self, *, contact_id: UUID, epoch: int, hubspot_id: str | None) -> tuple[str, datetime]:
        """A new token and when it ends."""
        now = self._clock()
        ends_at = (now + LIFETIME).replace(microsecond=0)
        claims = {
            "sub": str(contact_id),
            "epoch": epoch,
            "hid": hubspot_id,
            "aud": _AUDIENCE,
            "iss": _ISSUER,
            "iat": int(now.timestamp()),
            "exp": int(ends_at.timestamp()),
        }
        return jwt.encode(claims, self._keys[0], algorithm=_ALGORITHM), ends_at

    def verify(self, token: str) -> Caller:
        """The student who shows this token. Raises Unauthenticated."""
        now_s = self._clock().timestamp()
        digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
        remembered = self._verified.get(digest)
        if remembered is not None:
            caller, until_s = remembered
            if now_s < until_s:
                return caller
            del self._verified[digest]
        claims = self._claims(token)
        ends_s = float(claims["exp"])
        if now_s >= ends_s:
            raise Unauthenticated(_ENDED)
        caller = _caller(claims)
        while len(self._verified) >= _MOST_REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = (caller, min(ends_s, now_s + _REMEMBERED_FOR_S))
        return caller

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > _LONGEST_TOKEN:
            raise Unauthenticated
        for key in self._keys:
            try:
                # Times are compared with our own clock by the caller, one clock for issuing and for checking.
                return jwt.decode(
                    token,
                    key,
                    algorithms=[_ALGORITHM],
                    audience=_AUDIENCE,
                    issuer=_ISSUER,
                    options={"require": _CLAIMS, "verify_exp": False, "verify_iat": False},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError:
                break
        raise Unauthenticated


def _caller(claims: dict[str, Any]) -> Caller:
    epoch, hubspot_id, ends_s = claims["epoch"], claims.get("hid"), claims["exp"]
    try:
        contact_id = UUID(str(claims["sub"]))
    except ValueError:
        raise Unauthenticated from None
    if not isinstance(epoch, int) or not isinstance(hubspot_id, str | None) or not isinstance(ends_s, int):
        raise Unauthenticated
    name = f"student:{contact_id}"
    return Caller(
        CallerKind.STUDENT,
        name,
        contact_id=contact_id,
        epoch=epoch,
        hubspot_id=hubspot_id,
        limit_key=name,
        limit_per_min=CALLS_PER_MIN,
    )
