"""How the result of `tallybook verify` is shown."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tallybook.cli.session import print_fields, print_json

if TYPE_CHECKING:
    from tallybook.usecases.verify import Report


def show_report(report: Report, *, as_json: bool, strict: bool) -> bool:
    """Prints the report and gives whether every number is right."""
    is_ok = report.ok(strict=strict)
    if as_json:
        print_json({"ok": is_ok, **dataclasses.asdict(report)})
        return is_ok
    for finding in report.violations:
        print(f"wrong    {finding.invariant}  {finding.object}  {finding.problem}")
    for finding in report.warnings:
        print(f"warning  {finding.invariant}  {finding.object}  {finding.problem}")
    print_fields(
        {
            "looked at": dict(report.counts),
            "waiting for HubSpot": f"{report.lag.waiting} (oldest {report.lag.oldest_s:.0f} s)",
            "dead letters": report.lag.dead_letters,
            "open conflicts": report.lag.open_conflicts,
        }
    )
    wrong = sum(report.violation_counts.values())
    if wrong:
        print(f"{wrong} numbers are wrong: {dict(report.violation_counts)}")
    else:
        print(
            "Every number is right." if is_ok else "Every number is right, but HubSpot is behind (--strict)."
        )
    return is_ok
