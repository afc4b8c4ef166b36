"""On what it was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import psutil

from harness.paths import ROOT
from tallybook.postgres.embedded_binaries import choose_binaries

_QUIET_PERCENT = 10.0


@cache
def machine() -> str:
    """One line: processor, cores, memory, kernel, Python, PostgreSQL."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gb = psutil.virtual_memory().total / 2**30
    return (
        f"{_processor()}, {cores} cores, {memory_gb:.0f} GB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, PostgreSQL {_postgresql()}"
    )


def busy() -> str | None:
    """A warning when others use the processors, as lock holders that wait for one distort every ratio."""
    used_percent = psutil.cpu_percent(interval=1.0)
    if used_percent < _QUIET_PERCENT:
        return None
    return f"WARNING: others used {used_percent:.0f} % of the processors before the start: do not trust this."


@cache
def commit() -> str:
    """The commit measured, marked when files differ from it."""
    found = _said(["git", "rev-parse", "--short", "HEAD"]) or "without git"
    return found + (
        " with local changes" if _said(["git", "status", "--porcelain", "src", "supabase"]) else ""
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _postgresql() -> str:
    return _said([choose_binaries(None).program("postgres"), "--version"]).rpartition(" ")[2]


def _said(argv: list[str]) -> str:
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
