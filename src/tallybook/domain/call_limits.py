"""How often another system may be called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallLimit:
    """At most `calls` in any rolling `window_s` seconds."""

    calls: int
    window_s: float


@dataclass(slots=True)
class CallSlot:
    """A place for one call, and what its answer said of the calls of the day, once it has come."""

    daily_limit: int | None = None
    daily_remaining: int | None = None
