"""Which credit pays, and what a student has to spend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


def paying_credit(pays_with: Sequence[str], available: Mapping[str, int]) -> str | None:
    """The first credit type that has a credit available (balance minus held); None when none has.

    `available` must hold every type of `pays_with`: a balance that is not known is not 0 and raises KeyError.
    """
    return next((credit_type for credit_type in pays_with if available[credit_type] >= 1), None)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What can pay for one mock type: its own credits, and those it shares with other types."""

    specific_credits: int
    shared_credits: int

    @property
    def available_credits(self) -> int:
        """How many bookings of the type could be paid."""
        return self.specific_credits + self.shared_credits


def breakdown(pays_with: Sequence[str], available: Mapping[str, int]) -> Breakdown:
    """The credits for a mock type, its first credit type counted as its own and all others as shared.

    Like `paying_credit`, it raises KeyError for a balance that is not known.
    """
    first, *others = pays_with
    return Breakdown(max(0, available[first]), sum(max(0, available[credit_type]) for credit_type in others))
