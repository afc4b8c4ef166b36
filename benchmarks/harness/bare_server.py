"""`python -m harness.bare_server MODULE:APP PORT`: a bare handler on exactly the server that `serve` uses."""

from __future__ import annotations

import gc
import sys
from importlib import import_module

import uvicorn

from tallybook.cli.serving import listen, server_config


def main() -> None:
    """Serves until stopped."""
    module, _, name = sys.argv[1].partition(":")
    app = getattr(import_module(module), name)
    listener = listen("127.0.0.1", int(sys.argv[2]))
    gc.freeze()  # As `serve` does: what is compared is the work per request.
    uvicorn.Server(server_config(app, loop="uvloop")).run(sockets=[listener])


if __name__ == "__main__":
    main()
