"""A result: figures, ratios, bars, whether each is met; the machine and the command that repeats it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.machine import commit, machine


@dataclass(frozen=True, slots=True)
class Options:
    """How a benchmark is to run; `full` adds the parts that take minutes."""

    rounds: int = 3
    full: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line; `met` is None where nothing is demanded."""

    what: str
    figure: str
    ratio: str = ""
    bar: str = ""
    met: bool | None = None


@dataclass(slots=True)
class Report:
    """What one benchmark found."""

    command: str
    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def show(self, what: str, figure: str) -> None:
        """Adds a figure of which nothing is demanded."""
        self.rows.append(Row(what, figure))

    def demand_ratio(
        self,
        what: str,
        figure: str,
        *,
        ratio: float,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Adds a figure whose ratio has a bar."""
        bar, met = _bar(ratio, "", at_least, at_most)
        self.rows.append(Row(what, figure, f"{ratio:.2f}", bar, met))

    def demand(
        self,
        what: str,
        value: float,
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Adds a figure that has a bar itself."""
        digits = 0 if value == int(value) else 2 if abs(value) < 100 else 0
        bar, met = _bar(value, unit, at_least, at_most)
        self.rows.append(Row(what, f"{value:,.{digits}f} {unit}".strip(), "", bar, met))

    def note(self, line: str) -> None:
        """Adds a line below the table."""
        self.notes.append(line)

    @property
    def missed(self) -> int:
        """How many bars were not met."""
        return sum(row.met is False for row in self.rows)

    def print(self) -> None:
        """Prints everything on standard output."""
        print(f"\n{self.title}")
        print(machine())
        print(f"Tallybook {commit()}; repeat with: {self.command}\n")
        met = {True: "met", False: "NOT met", None: ""}
        table = [("what", "figure", "ratio", "bar", "")]
        table += [(row.what, row.figure, row.ratio, row.bar, met[row.met]) for row in self.rows]
        widths = [max(len(line[at]) for line in table) for at in range(5)]
        for number, texts in enumerate(table):
            cells = [
                text.rjust(width) if at in {1, 2} and number else text.ljust(width)
                for at, (text, width) in enumerate(zip(texts, widths, strict=True))
            ]
            print("  ".join(cells).rstrip())
        for line in self.notes:
            print(line)
        sys.stdout.flush()


def _bar(value: float, unit: str, at_least: float | None, at_most: float | None) -> tuple[str, bool]:
    parts, met = [], True
    if at_least is not None:
        parts.append(f">= {at_least:g} {unit}".strip())
        met = met and value >= at_least
    if at_most is not None:
        parts.append(f"<= {at_most:g} {unit}".strip())
        met = met and value <= at_most
    return ", ".join(parts), met


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of them lie, the nearest one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
