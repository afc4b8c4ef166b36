"""A worker that only pushes, so that every call it makes is a push call; settings as for every command."""

from __future__ import annotations

import asyncio
import http.server
import signal
import sys
import threading

from tallybook.jobs.push_changes import run_push
from tallybook.settings import load_settings
from tallybook.wiring import opened


class _Alive(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


async def main() -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), _Alive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    async with opened(load_settings(), pool_size=8) as parts:
        await run_push(parts.mirror, stop)
    server.shutdown()


asyncio.run(main())
