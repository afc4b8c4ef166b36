"""CPU time of processes, from the operating system's own count."""

from __future__ import annotations

from contextlib import suppress

import psutil


def tree_cpu_s(pid: int) -> float:
    """User and system time of a process and all below it, including children that have ended."""
    root = psutil.Process(pid)
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def peak_rss_mb(pid: int) -> float | None:
    """The highest resident memory of a Linux process so far; None when it is gone or cannot be asked."""
    with suppress(OSError, IndexError, ValueError), open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None
