"""`tallybook simulator`: a stand-in for HubSpot."""

from __future__ import annotations

import os
import sys

import typer


def simulator(context: typer.Context) -> None:
    """Run a stand-in for one HubSpot portal. Its options: tallybook simulator --help."""
    sys.stdout.flush()
    # It is a program of its own that Tallybook reaches over HTTP only, so this process becomes it.
    os.execv(sys.executable, [sys.executable, "-m", "hubspot_simulator", *context.args])  # noqa: S606
