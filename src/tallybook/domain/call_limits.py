"""How often another system may be called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallLimit:
    """At most `calls` in any rolling `window_s` seconds."""

    calls: int
    window_s: float
