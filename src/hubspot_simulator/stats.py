"""What the back door counts."""

from typing import Any

KINDS = (
    "list",
    "read",
    "create",
    "update",
    "archive",
    "merge",
    "gdpr_delete",
    "batch_read",
    "batch_create",
    "batch_update",
    "batch_upsert",
    "batch_archive",
    "search",
    "properties",
    "schemas",
    "associations",
    "account",
)


class Stats:
    """Calls let through, by kind; calls refused with 429, by policy; webhook deliveries."""

    def __init__(self) -> None:
        self.calls = dict.fromkeys(KINDS, 0)
        self.refused: dict[str, int] = {}
        self.unauthorised = 0
        self.faults = 0
        self.webhooks_sent = 0
        self.webhooks_failed = 0

    def answer(self, *, peaks: dict[str, int]) -> dict[str, Any]:
        """The body of `GET /_simulator/stats`; `peaks` are the fullest rolling windows seen."""
        return {
            "calls": self.calls,
            "total": sum(self.calls.values()),
            "rejected_429": sum(self.refused.values()),
            "rejected_by_policy": self.refused,
            "rejected_401": self.unauthorised,
            "faults": self.faults,
            "peaks": peaks,
            "webhooks": {"sent": self.webhooks_sent, "failed": self.webhooks_failed},
        }
