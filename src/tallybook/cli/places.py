"""Where Tallybook keeps files of its own on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def _home(variable: str, usual: str) -> Path:
    # The XDG specification: a relative path in the variable is to be ignored.
    given = Path(os.environ.get(variable, ""))
    return (given if given.is_absolute() else Path.home() / usual) / "tallybook"


def data_home() -> Path:
    """The folder for databases."""
    return _home("XDG_DATA_HOME", ".local/share")


def embedded_data_dir() -> Path:
    """The database of `TALLYBOOK_EMBEDDED=1`."""
    return data_home() / "embedded"


def demo_data_dir() -> Path:
    """The demo's database and state, where `--data-dir` does not say otherwise."""
    return data_home() / "demo"


def demo_state_file(data_dir: Path | None = None) -> Path:
    """Where a running demo says how to reach it."""
    return (data_dir or demo_data_dir()) / "ready.json"


def bug_report_file() -> Path:
    """Where the last unexpected error of a command is described."""
    return _home("XDG_STATE_HOME", ".local/state") / "last-error.txt"
