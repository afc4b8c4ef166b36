"""`tallybook worker` as a process, beside a server, a simulator and a database."""

import asyncio
import json
import time

from e2e.service import BIN, Program


class Worker(Program):
    """A worker with the settings of a service."""

    def __init__(self, service, *options, **settings):
        super().__init__(
            [BIN / "tallybook", "worker", *options],
            directory=service.directory,
            name="worker",
            environment={
                name: value for name, value in (service.environment | settings).items() if value is not None
            },
        )

    async def ready(self):
        await self.said('"worker_started"')
        return self

    def log(self, event=None):
        lines = [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]
        return [line for line in lines if event is None or line["event"] == event]


async def eventually(found, *, within_s=20.0):
    """What `found()` gives as soon as that is true; and after how many seconds."""
    started = time.monotonic()
    while True:
        value = await found()
        if value:
            return value, time.monotonic() - started
        assert time.monotonic() - started < within_s, f"not within {within_s} s"
        await asyncio.sleep(0.05)
