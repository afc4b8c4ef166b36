"""The demo's own HubSpot and its worker: children that end with it, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from tallybook.domain.errors import SetupError
from tallybook.settings import variables

_MOCK_EXAMS, _BOOKINGS = 40, 60
_STOP_WITHIN_S = 15.0


@contextmanager
def simulator(directory: Path, contacts: int, console: Console) -> Iterator[str]:
    """A HubSpot simulator, at the address given."""
    command = [sys.executable, "-m", "hubspot_simulator", "--port", "0", "--stop-with-stdin",
               "--state", str(directory / "hubspot.state"), "--contacts", str(contacts),
               "--mock-exams", str(_MOCK_EXAMS), "--bookings", str(_BOOKINGS)]  # fmt: skip
    with _child(command, log_file=directory / "simulator.log", stdout=subprocess.PIPE) as child:
        console.print(f"[dim]HubSpot simulator: {contacts:,} contacts[/dim]")
        assert child.stdout is not None
        line = child.stdout.readline()
        if " on http" not in line:
            raise SetupError(
                "the HubSpot simulator did not start", hint=f"See {directory / 'simulator.log'}."
            )
        yield line.split(" on ")[1].strip()


@contextmanager
def worker(directory: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """`tallybook worker` with these settings and none of this shell's."""
    command = [sys.executable, "-c", "from tallybook.cli import main; main()", "worker", "--stop-with-stdin"]
    others = {name: text for name, text in os.environ.items() if name not in variables()}
    log_file = directory / "worker.log"
    # From its directory: a file .env of this one is none of the demo's.
    with _child(command, log_file=log_file, stdout=None, cwd=directory, env={**others, **settings}):
        yield


@contextmanager
def _child(
    command: list[str],
    *,
    log_file: Path,
    stdout: int | None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A program of ours that watches its standard input, and so ends with us however we end."""
    with log_file.open("ab") as log:
        child = subprocess.Popen(  # noqa: S603 - our own modules, our own arguments
            command,
            stdin=subprocess.PIPE,
            stdout=log if stdout is None else stdout,
            stderr=log,
            text=True,
            start_new_session=True,
            cwd=cwd,
            env=env,
        )
    try:
        yield child
    finally:
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(timeout=_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
