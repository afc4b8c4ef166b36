"""The commands `tallybook sync ...`: how the mirror stands, and the work it does when told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tallybook.cli.session import AsJson, print_fields, print_json, print_table, with_parts

if TYPE_CHECKING:
    from tallybook.wiring import Parts

_LANES = ("lane", "waiting", "under_way", "oldest", "p95", "dead_letters", "paused")


def status(*, as_json: AsJson = False) -> None:
    """Show how far HubSpot and Tallybook are behind each other, and what waits for a person."""
    from tallybook.usecases.show_sync_status import show_sync_status

    async def work(parts: Parts) -> dict[str, Any]:
        found = await show_sync_status(parts.db)
        found["limits"] = {
            "calls_per_10s": parts.settings.hubspot_calls_per_10s,
            "searches_per_s": parts.settings.hubspot_searches_per_s,
        }
        return found

    found = with_parts(work)
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    rows = [
        {
            **lane,
            "oldest": duration(lane["oldest_s"]),
            "p95": None if lane["p95_s"] is None else duration(lane["p95_s"]),
            "paused": _paused(lane["paused"]),
        }
        for lane in found["lanes"]
    ]
    print_table(rows, _LANES)
    calls = sum(each["in_use"] for each in found["budget"])
    searches = sum(each["searches_in_use"] for each in found["budget"])
    limits = found["limits"]
    print()
    print_fields(
        {
            "pushing": _held(found["hold"]),
            "own writes": _recognised(found["portal"]),
            "open conflicts": found["conflicts"]["open"],
            "calls in use": f"{calls} of {limits['calls_per_10s']} in 10 s, "
            f"{searches} of {limits['searches_per_s']} searches in 1 s",
        }
    )
    for title, rows, columns in (
        ("conflicts", found["conflicts"]["by_kind"], ("object_type", "kind", "open", "frozen")),
        ("calls to HubSpot", found["budget"], ("kind", "in_use", "calls", "throttled", "throttled_at")),
        ("searched for changes", found["pulled"], ("object_type", "complete_to", "behind_s")),
        ("alerts", found["alerts"], ("kind", "subject", "since", "details")),
    ):
        if rows:
            print(f"\n{title}")
            print_table(rows, columns)


def duration(seconds: float) -> str:
    """A length of time as people say it: `4 s`, `12 min`, `3 h`, `2 d`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _paused(paused: dict[str, Any] | None) -> str | None:
    if paused is None:
        return None
    words = f" ({paused['words']})" if paused["words"] else ""
    until = f", tries again at {paused['resume_at']}" if paused["resume_at"] else ""
    return f"{paused['reason']}{words}{until}"


def _recognised(portal: dict[str, Any] | None) -> str | None:
    """Only of a portal whose histories give one request several times."""
    apart_ms = (portal or {}).get("stamps_apart_ms")
    if apart_ms is None:
        return None
    return f"recognised within 2 s: the times of one request lie up to {apart_ms / 1000:.3f} s apart"


def _held(hold: dict[str, Any] | None) -> str:
    return "goes on" if hold is None else f"stopped: {hold.get('reason')}"
