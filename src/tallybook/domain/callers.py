"""Who makes a request, as far as rules need to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from tallybook.domain.staff import StaffRole


class CallerKind(StrEnum):
    """By what right somebody calls."""

    STUDENT = "student"
    PAIR = "pair"
    APPLICATION = "application"
    STAFF = "staff"
    CRON = "cron"
    CLI = "cli"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Caller:
    """The one who asks.

    `credential` names what was shown, never the secret itself: `student:<uuid>`, `key:<id>`,
    `staff:<uuid>`, `pair:<address>`, `cli:<os user>`. It scopes idempotency keys. `epoch` is the session
    epoch a token is bound to, `role` that of a staff member.
    `limit_key` and `limit_per_min` say what its calls count against; None means not limited.
    """

    kind: CallerKind
    credential: str
    contact_id: UUID | None = None
    epoch: int | None = None
    hubspot_id: str | None = None
    scopes: frozenset[str] = field(default_factory=frozenset)
    role: StaffRole | None = None
    limit_key: str | None = None
    limit_per_min: int | None = None

    def has_scope(self, scope: str) -> bool:
        """Whether the credential was given this scope."""
        return scope in self.scopes
