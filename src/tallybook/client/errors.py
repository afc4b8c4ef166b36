"""What can go wrong.

::

    TallybookClientError
    ├── NotReachable         no answer, or an answer that says "later"; nothing is known to have happened
    └── CreditsRefused       an answer that says no, with its code
        └── InsufficientCredits
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TallybookClientError(Exception):
    """Anything this client raises."""


class NotReachable(TallybookClientError):
    """Tallybook did not answer in time, or was not able to decide. Nothing may be given away because of it.

    `outcome_unknown`: a request may have arrived, so what it asked for may have happened.
    """

    def __init__(self, message: str, *, outcome_unknown: bool, retry_after_s: float = 2.0) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown
        self.retry_after_s = retry_after_s


class CreditsRefused(TallybookClientError):
    """Tallybook said no. `code` is stable, `details` help to act on it; `envelope` is the whole answer."""

    def __init__(self, *, status: int, envelope: Mapping[str, Any]) -> None:
        error = envelope.get("error")
        said: Mapping[str, Any] = error if isinstance(error, dict) else {}
        self.status = status
        self.code = str(said.get("code", "UNKNOWN"))
        self.details: Mapping[str, Any] = said.get("details") or {}
        self.request_id = envelope.get("request_id")
        self.envelope = envelope
        super().__init__(f"{self.code}: {said.get('message', f'status {status}')}")


class InsufficientCredits(CreditsRefused):
    """The contact cannot pay. `details` say what is needed, there and held, and what would help."""
