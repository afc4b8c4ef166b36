"""A command of ours, watched while it runs: its memory, its CPU and the calls it makes."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.cluster import Database
from harness.cpu import peak_rss_mb, tree_cpu_s
from harness.paths import TALLYBOOK
from harness.servers import Server, ask

_EVERY_S = 0.05


@dataclass(slots=True)
class Watched:
    """One run: what it printed, how long it took, its CPU and its highest memory.

    `calls_at` are the simulator's counts of calls, each with the time it was looked at.
    """

    said: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    calls_at: list[tuple[float, int]] = field(default_factory=list)


def watched(*arguments: str, database: Database, hubspot: Server, env: Mapping[str, str]) -> Watched:
    """Runs `tallybook ... --json` to its end."""
    ran = Watched()
    over = threading.Event()
    began_at = time.monotonic()
    with subprocess.Popen(
        [TALLYBOOK, *arguments, "--json"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=database.cluster.server.data_dir,
    ) as process:
        looking = threading.Thread(target=_look, args=(ran, process.pid, hubspot, over), daemon=True)
        looking.start()
        out, problems = process.communicate()
        ran.seconds = time.monotonic() - began_at
        over.set()
        looking.join()
    if process.returncode:
        raise RuntimeError(f"tallybook {' '.join(arguments)} failed: {problems[-2000:]}")
    ran.said = json.loads(out)
    return ran


def _look(ran: Watched, pid: int, hubspot: Server, over: threading.Event) -> None:
    while not over.wait(_EVERY_S):
        peak_mb = peak_rss_mb(pid)
        if peak_mb is not None:
            ran.peak_mb = max(ran.peak_mb, peak_mb)
            ran.cpu_s = max(ran.cpu_s, tree_cpu_s(pid))
        ran.calls_at.append((time.monotonic(), ask(hubspot, "GET", "/_simulator/stats")["total"]))
