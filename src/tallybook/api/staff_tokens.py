"""A staff member's token: it only identifies; what its bearer may do is read from `staff` at each request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from tallybook.api.secrets import STAFF_TOKENS
from tallybook.api.signing import Signer
from tallybook.domain.errors import Unauthenticated

LIFETIME = timedelta(hours=12)


class StaffTokens:
    """Issues and verifies the tokens of local staff accounts."""

    def __init__(self, secret_key: str, *, previous: str | None, clock: Callable[[], datetime]) -> None:
        self._signer = Signer(
            secret_key,
            previous=previous,
            purpose=STAFF_TOKENS,
            audience="tallybook-staff",
            claims=("sub", "epoch"),
            clock=clock,
        )
        self._clock = clock

    def issue(self, *, staff_id: UUID, epoch: int) -> tuple[str, datetime]:
        """A new token and when it ends."""
        return self._signer.sign({"sub": str(staff_id), "epoch": epoch}, lifetime=LIFETIME)

    def verify(self, token: str) -> tuple[UUID, int]:
        """Whose token it is, and of which session epoch. Raises Unauthenticated."""
        claims = self._signer.open(token)
        if self._clock().timestamp() >= claims["exp"]:
            raise Unauthenticated("Your session has ended. Please sign in again.")
        try:
            return UUID(str(claims["sub"])), int(claims["epoch"])
        except (TypeError, ValueError):
            raise Unauthenticated from None
