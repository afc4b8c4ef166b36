"""How long a person waits for the command line and for a server that is started again."""

from __future__ import annotations

import subprocess
import time
from statistics import median

from harness.cluster import cluster
from harness.paths import TALLYBOOK
from harness.report import Options, Report
from harness.servers import environment, serve

TITLE = "start: serve on an existing database, and --help"
SECONDS = 12
CONTACTS = 10_000


def run(options: Options) -> Report:
    """Medians of a few starts, the very first of each left out."""
    report = Report("./dev bench startup", TITLE)
    with cluster() as postgres:
        database = postgres.database()
        database.fill(CONTACTS)
        starts = []
        for _ in range(options.rounds + 1):
            with serve(database) as server:
                starts.append(server.ready_after_s)
    helps = [_help_s() for _ in range(2 * options.rounds + 1)]
    report.demand("tallybook serve until /readyz says ready", median(starts[1:]), "s", at_most=2)
    report.demand("tallybook --help", median(helps[1:]), "s", at_most=0.3)
    report.note(
        f"Median of {len(starts) - 1} and {len(helps) - 1}; the first start of all: {starts[0]:.2f} s."
    )
    return report


def _help_s() -> float:
    began_at = time.perf_counter()
    subprocess.run([TALLYBOOK, "--help"], env=environment(), check=True, capture_output=True)
    return time.perf_counter() - began_at
