"""Work that goes on after an answer: bounded, known, and finished or cancelled before the process ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from tallybook.api.logs import describe_exception
from tallybook.domain.errors import RateLimited

_MOST_TASKS = 500
_CLOSING_S = 10.0


class Background:
    """Tasks of one application. A failure is logged, since nobody waits for it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("tallybook.api")

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Begin the work. Raises RateLimited when too much is going on already."""
        if len(self._tasks) >= _MOST_TASKS:
            work.close()
            raise RateLimited
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def close(self) -> None:
        """Wait for what runs, a few seconds at most, then cancel it."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=_CLOSING_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._log.warning("background_cancelled", work=task.get_name())
            return
        error = task.exception()
        if error is not None:
            self._log.error("background_failed", work=task.get_name(), **describe_exception(error))
