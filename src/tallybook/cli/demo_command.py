"""`tallybook demo`: everything on this machine, without an account anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the API listens, on 127.0.0.1.")] = 8000,
    data_dir: Annotated[Path | None, typer.Option(help="Where the demo keeps its data.")] = None,
    contacts: Annotated[int, typer.Option(min=1, help="Students of the simulated HubSpot.")] = 1247,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written once it can serve: addresses and logins, as JSON.")
    ] = None,
) -> None:
    """Run the whole product here: embedded PostgreSQL, simulated HubSpot, server."""
    from tallybook.cli.demo import run_demo

    run_demo(port=port, data_dir=data_dir, contacts=contacts, ready_file=ready_file)
