"""The embedded database of `TALLYBOOK_EMBEDDED=1`: started here, or found running under another command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tallybook.cli.places import embedded_data_dir
from tallybook.domain.errors import SetupError


@contextmanager
def embedded_uri() -> Iterator[str]:
    """The address of the embedded database for as long as the block lasts. Raises SetupError.

    A server that another command of this account runs is used, and left running.
    """
    from tallybook.postgres.embedded import EmbeddedServer

    directory = embedded_data_dir()
    noted = directory / "address"
    try:
        server = EmbeddedServer.start(directory)
    except SetupError as error:
        if error.details.get("pid") is None or not noted.is_file():
            raise
        yield noted.read_text(encoding="utf-8")
        return
    try:
        _note(noted, server.uri())
        yield server.uri()
    finally:
        noted.unlink(missing_ok=True)
        server.stop()


def _note(file: Path, uri: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(uri)
