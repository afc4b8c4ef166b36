"""`tallybook loadtest`: many students check their credits at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tallybook.cli.places import demo_state_file
from tallybook.cli.session import AsJson, print_fields, print_json, read_settings
from tallybook.domain.errors import SetupError

if TYPE_CHECKING:
    from tallybook.cli.loadtest_client import Outcome

_PATH = "/api/mock-exams/validate-credits"
_FIRST_STUDENT = 1_599_000
_DEFAULT_URL = "http://127.0.0.1:8000"


def loadtest(
    requests: Annotated[int, typer.Argument(min=1, max=1_000_000, help="How many requests in all.")],
    batches: Annotated[int, typer.Argument(min=1, help="In how many waves.")],
    *,
    url: Annotated[str | None, typer.Option(help="Server; default API_BASE_URL, else the demo's.")] = None,
    key: Annotated[
        str | None, typer.Option(help="API key; default TALLYBOOK_LOADTEST_KEY, else the demo's.")
    ] = None,
    students: Annotated[
        Path | None, typer.Option(help="A file of lines `student_id,email`; default 1599000 and on.")
    ] = None,
    interval_ms: Annotated[float, typer.Option(min=0, help="From one wave to the next.")] = 25.0,
    mock_type: Annotated[str, typer.Option(help="For which type to check.")] = "Situational Judgment",
    timeout_s: Annotated[float, typer.Option(min=0.1, help="After which a request has failed.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Send credit checks in waves and show how they were answered; exit code 1 when one failed.

    The load is open: each wave starts at its time, whether or not earlier ones were answered. A load that
    waits for answers slows down with the server and leaves out just those that would have waited longest.
    """
    from tallybook.cli.loadtest_client import LoadClient, Target

    if batches > requests:
        raise typer.BadParameter("there cannot be more batches than requests")
    settings, demo = read_settings(), _demo_state()
    address = url or settings.api_base_url or demo.get("url") or _DEFAULT_URL
    secret = key or settings.text("TALLYBOOK_LOADTEST_KEY")
    if secret is None and demo.get("url") == address.rstrip("/"):
        secret = demo.get("api_key")
    if secret is None:
        raise SetupError(
            "loadtest needs an API key with the scope students",
            hint="Give --key or TALLYBOOK_LOADTEST_KEY; make one: tallybook key create NAME --scope students",
        )
    try:
        client = LoadClient(Target.parse(address), timeout_s=timeout_s)
    except ValueError as error:
        raise SetupError(str(error), hint="Give --url or API_BASE_URL.") from error
    pairs = list(_pairs(requests, students))
    bodies = [
        json.dumps({"student_id": student_id, "email": email, "mock_type": mock_type}).encode()
        for student_id, email in pairs
    ]
    headers = {"Authorization": f"Bearer {secret}"}
    sent = [client.request(_PATH, body, headers=headers) for body in bodies]
    outcome = _run(client, _waves(sent, batches), interval_s=interval_ms / 1000)
    _show(outcome, address, as_json=as_json)
    if outcome.statuses[200] < requests:
        raise typer.Exit(1)


def _run(client: object, waves: Sequence[Sequence[bytes]], *, interval_s: float) -> Outcome:
    import asyncio
    import gc

    import uvloop

    from tallybook.cli.loadtest_client import LoadClient

    assert isinstance(client, LoadClient)
    # A pause of our own collector would look like one of the server's.
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(client.run(waves, interval_s=interval_s))


def _demo_state() -> dict[str, str]:
    try:
        state = json.loads(demo_state_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: state[name] for name in ("url", "api_key") if isinstance(state.get(name), str)}


def _pairs(requests: int, file: Path | None) -> Iterator[tuple[str, str]]:
    if file is None:
        for i in range(requests):
            yield str(_FIRST_STUDENT + i), f"student{i}@example.com"
        return
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{file} cannot be read") from error
    pairs = [line.split(",", 1) for line in lines if line and not line.lower().startswith("student_id")]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise SetupError(f"{file} must have lines such as 1599000,student0@example.com")
    for i in range(requests):
        student_id, email = pairs[i % len(pairs)]
        yield student_id.strip(), email.strip()


def _waves(requests: Sequence[bytes], batches: int) -> list[Sequence[bytes]]:
    """The requests in waves whose sizes differ by at most one."""
    size, larger = divmod(len(requests), batches)
    ends = [size * number + min(number, larger) for number in range(batches + 1)]
    return [requests[start:end] for start, end in pairwise(ends)]


def _show(outcome: Outcome, address: str, *, as_json: bool) -> None:
    total = outcome.statuses.total()
    succeeded = outcome.statuses[200]
    ordered = sorted(outcome.latencies_ms)
    figures = {
        "average_ms": sum(ordered) / len(ordered) if ordered else None,
        "p50_ms": _percentile(ordered, 0.50),
        "p95_ms": _percentile(ordered, 0.95),
        "p99_ms": _percentile(ordered, 0.99),
        "min_ms": ordered[0] if ordered else None,
        "max_ms": ordered[-1] if ordered else None,
    }
    shown = {
        "url": address,
        "requests": total,
        "success": succeeded,
        "failure": total - succeeded,
        "by_status": {str(status or "no answer"): n for status, n in sorted(outcome.statuses.items()) if n},
        "problems": dict(outcome.problems),
        "rate_limited_429": outcome.statuses[429],
        "duration_s": round(outcome.duration_s, 3),
        "requests_per_s": round(total / outcome.duration_s, 1) if outcome.duration_s else None,
        **{name: None if value is None else round(value, 1) for name, value in figures.items()},
    }
    if as_json:
        print_json(shown)
    else:
        print_fields(shown)


def _percentile(ordered: Sequence[float], part: float) -> float | None:
    if not ordered:
        return None
    # The smallest value that at least this part of all does not exceed.
    return ordered[max(0, -(-int(part * 1000) * len(ordered) // 1000) - 1)]
