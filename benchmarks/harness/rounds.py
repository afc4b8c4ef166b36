"""Interleaved rounds: what a shared machine does meanwhile happens to all that are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from harness.load import Load


def interleaved(
    names: Sequence[str], measure: Callable[[str], Load], *, rounds: int
) -> dict[str, list[Load]]:
    """Measures each in turn, every second round in the opposite order."""
    found: dict[str, list[Load]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(measure(name))
    return found


def rate_ratio(ours: Sequence[Load], theirs: Sequence[Load]) -> float:
    """The median over the rounds of our rate by theirs."""
    return median(one.per_s / other.per_s for one, other in zip(ours, theirs, strict=True))


def median_rate(loads: Sequence[Load]) -> float:
    """The median rate of the rounds."""
    return median(load.per_s for load in loads)


def median_ms(loads: Sequence[Load], part: float) -> float:
    """The median over the rounds of a percentile."""
    return median(load.percentile_ms(part) for load in loads)


def cpu_ms_each(loads: Sequence[Load], name: str) -> float:
    """CPU time per answer over all rounds together, since a single short one counts in coarse ticks."""
    return sum(load.cpu_s[name] for load in loads) * 1000 / sum(load.answers for load in loads)
