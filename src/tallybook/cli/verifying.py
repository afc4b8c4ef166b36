"""How the result of `tallybook verify` is shown, and how far comparing the two sides has come."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tallybook.cli.session import print_fields, print_json, print_table

if TYPE_CHECKING:
    from tallybook.domain.mirror import MirroredType
    from tallybook.usecases.mirror import Mirror
    from tallybook.usecases.verify import Report
    from tallybook.usecases.verify_mirror import Compared, MirrorReport

_A_LINE_EVERY_S = 5.0


async def compare_mirror(mirror: Mirror, *, wait_s: float, quiet: bool) -> MirrorReport:
    """Compares both sides, with a line on standard error now and then."""
    from tallybook.usecases.verify_mirror import verify_mirror

    told_at = time.monotonic()

    def show(compared: Mapping[MirroredType, Compared]) -> None:
        nonlocal told_at
        if quiet or time.monotonic() - told_at < _A_LINE_EVERY_S:
            return
        told_at = time.monotonic()
        done = ", ".join(f"{each.objects} {of.value}s" for of, each in compared.items() if each.objects)
        print(f"compared with HubSpot so far: {done}", file=sys.stderr)

    return await verify_mirror(mirror, wait_s=wait_s, on_progress=show)


def show_report(report: Report, *, as_json: bool, strict: bool, compared: MirrorReport | None = None) -> bool:
    """Prints the report and gives whether every number is right, and the same in HubSpot."""
    is_ok = report.ok(strict=strict) and (compared is None or compared.ok)
    if as_json:
        beside = {} if compared is None else {"mirror": _as_dict(compared)}
        print_json({"ok": is_ok, **dataclasses.asdict(report), **beside})
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
    elif report.ok(strict=strict):
        print("Every number is right.")
    else:
        print("Every number is right, but HubSpot is behind (--strict).")
    if compared is not None:
        _show_mirror(compared)
    return is_ok


def _show_mirror(compared: MirrorReport) -> None:
    print("\nHubSpot")
    rows = [{"type": of.value, **_counts(each)} for of, each in compared.compared.items()]
    print_table(rows, ("type", "objects", "settled", "compared", "skipped", "different"))
    for each in compared.differences:
        print(
            f"different  {each.object_type.value} {each.object_id} (HubSpot {each.hubspot_id or '-'})"
            f"  {each.field}: ours {each.ours!r}, theirs {each.theirs!r}"
        )
    print(
        "Whatever is settled is the same in HubSpot."
        if compared.ok
        else f"{sum(each.different for each in compared.compared.values())} objects differ from HubSpot."
    )


def _counts(compared: Compared) -> dict[str, int]:
    return {**dataclasses.asdict(compared), "skipped": compared.skipped}


def _as_dict(compared: MirrorReport) -> dict[str, Any]:
    return {
        "ok": compared.ok,
        "compared": {of.value: _counts(each) for of, each in compared.compared.items()},
        "differences": [dataclasses.asdict(each) for each in compared.differences],
        "waited_s": round(compared.waited_s, 1),
    }
