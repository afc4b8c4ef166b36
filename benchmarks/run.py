"""`./dev bench NAME`: runs one benchmark, or `all` that take under a minute; without a name, the list."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from harness.machine import busy
from harness.report import Options

MODULES = (
    "startup",
    "validate_credits",
    "bookings_create",
    "booking_function",
    "rush",
    "miss",
    "misses_400",
    "loadtest",
    "import_contacts",
    "reconcile",
    "push",
    "metered_actions",
    "growth",
)
"""Each has TITLE, SECONDS (about how long it takes) and `run(options) -> Report`."""

FULL = {
    "metered_actions": "--full: a million attempts at one contact, some minutes",
    "import_contacts": "--full: also a million contacts, about 12 minutes",
    "push": "--full: for two minutes",
    "growth": "--full: against a million contacts and five million entries; without, a hundred thousand",
}


def names() -> dict[str, str]:
    """Benchmarks by the name they are called by."""
    return {module.removesuffix("_contacts").removesuffix("_actions"): module for module in MODULES}


def main() -> int:
    """Runs what the command line asks for; 1 when a bar was missed."""
    parser = argparse.ArgumentParser("./dev bench", description=__doc__)
    parser.add_argument("name", nargs="?", help="which one, or all")
    parser.add_argument("--full", action="store_true", help="also the parts that take minutes")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    given = parser.parse_args()
    known = names()
    if given.name is None:
        _list(known)
        return 0
    if given.name != "all" and given.name not in known:
        print(f"./dev bench: there is no {given.name!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [given.name] if given.name != "all" else [name for name in known if _seconds(known[name]) < 60]
    missed = 0
    warning = busy()
    if warning:
        print(warning, file=sys.stderr)
    for name in chosen:
        report = import_module(known[name]).run(Options(rounds=given.rounds, full=given.full))
        if warning:
            report.note(warning)
        report.print()
        missed += report.missed
    if missed:
        print(f"\n{missed} bar(s) NOT met.")
    return 1 if missed else 0


def _seconds(module: str) -> int:
    return int(import_module(module).SECONDS)


def _list(known: dict[str, str]) -> None:
    width = max(map(len, known))
    for name, module in known.items():
        found = import_module(module)
        print(f"{name:<{width}}  {found.TITLE} (about {found.SECONDS} s)")
        if module in FULL:
            print(f"{'':<{width}}  {FULL[module]}")


if __name__ == "__main__":
    sys.exit(main())
