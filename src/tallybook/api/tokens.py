"""A student's token: signed, good for 12 hours, bound to the contact's session epoch, which SQL compares."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from tallybook.api.secrets import STUDENT_TOKENS
from tallybook.api.signing import Signer
from tallybook.domain.callers import Caller, CallerKind
from tallybook.domain.errors import Unauthenticated

LIFETIME = timedelta(hours=12)
CALLS_PER_MIN = 120

_REMEMBERED_FOR_S = 60
_MOST_REMEMBERED = 10_000
_ENDED = "Your session has ended. Please sign in again."


class StudentTokens:
    """Issues and verifies tokens. A verified one is remembered for a minute, because checking costs 30 us."""

    def __init__(self, secret_key: str, *, previous: str | None, clock: Callable[[], datetime]) -> None:
        self._signer = Signer(
            secret_key,
            previous=previous,
            purpose=STUDENT_TOKENS,
            audience="tallybook-student",
            claims=("sub", "epoch"),
            clock=clock,
        )
        self._clock = clock
        self._verified: dict[bytes, tuple[Caller, float]] = {}

    def issue(self, *, contact_id: UUID, epoch: int, hubspot_id: str | None) -> tuple[str, datetime]:
        """A new token and when it ends."""
        claims = {"sub": str(contact_id), "epoch": epoch, "hid": hubspot_id}
        return self._signer.sign(claims, lifetime=LIFETIME)

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
        claims = self._signer.open(token)
        ends_s = float(claims["exp"])
        if now_s >= ends_s:
            raise Unauthenticated(_ENDED)
        caller = _caller(claims)
        while len(self._verified) >= _MOST_REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = (caller, min(ends_s, now_s + _REMEMBERED_FOR_S))
        return caller


def _caller(claims: dict[str, Any]) -> Caller:
    epoch, hubspot_id = claims["epoch"], claims.get("hid")
    try:
        contact_id = UUID(str(claims["sub"]))
    except ValueError:
        raise Unauthenticated from None
    if not isinstance(epoch, int) or not isinstance(hubspot_id, str | None):
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
