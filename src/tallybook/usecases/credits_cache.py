"""A display cache of balances, in one process. No decision reads it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

EVERYBODY = "*"

_MOST_ENTRIES = 50_000
_CHANGES = frozenset(
    (
        "absorb_bookings",
        "absorb_contacts",
        "absorb_mock_exams",
        "adjust_credits",
        "book_seat",
        "cancel_booking",
        "cancel_bookings",
        "charge_actions",
        "close_hold",
        "correct_people",
        "create_contact",
        "end_sessions",
        "erase_contact",
        "hold_credits",
        "keep_ours",
        "mark_contacts_deleted",
        "move_booking",
        "open_people",
        "refund_use",
        "repeat_decisions",
        "resolve_conflict",
        "restore_contact",
        "sign_in",
        "take_over_booking",
        "take_payment_event",
    )
)
"""The statements of a server after which a balance, or who may see it, can be another."""


def changed_contact(query: str, params: Mapping[str, Any]) -> str | None:
    """Whose credits a statement may have changed: a UUID, EVERYBODY when it does not say; None: nobody's."""
    if query not in _CHANGES:
        return None
    contact_id = params.get("contact_id")
    return str(contact_id) if isinstance(contact_id, UUID) else EVERYBODY


@dataclass(frozen=True, slots=True)
class _Entry:
    data: bytes
    contact_id: str
    ends_at: float


class CreditsCache:
    """Answers about credits, each for at most `ttl_s` seconds and until its contact is forgotten.

    An answer that was being read while something was forgotten is not kept: it may be older than the change.
    """

    def __init__(self, ttl_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._keys: dict[str, set[str]] = {}
        self.generation = 0

    def get(self, key: str) -> bytes | None:
        """The kept answer, with `source` "cache" and the `as_of` of its reading; None when there is none."""
        entry = self._entries.get(key)
        if entry is None or entry.ends_at <= self._clock():
            return None
        return entry.data

    def put(self, key: str, data: bytes, *, generation: int) -> None:
        """Keeps an answer that was asked for at `generation`."""
        if generation != self.generation:
            return
        read = json.loads(data)
        if len(self._entries) >= _MOST_ENTRIES:
            self.forget(EVERYBODY)
        contact_id = str(read["id"])
        kept = json.dumps({**read, "source": "cache"}, ensure_ascii=False).encode()
        self._entries[key] = _Entry(kept, contact_id, self._clock() + self._ttl_s)
        self._keys.setdefault(contact_id, set()).add(key)

    def forget(self, contact: str) -> None:
        """Drops what is kept of a contact, or of EVERYBODY."""
        self.generation += 1
        if contact == EVERYBODY:
            self._entries.clear()
            self._keys.clear()
        for key in self._keys.pop(contact, ()):
            self._entries.pop(key, None)
