"""Waiting that ends at once when everything is to stop."""

from __future__ import annotations

import asyncio


async def pause(stop: asyncio.Event, wait_s: float) -> None:
    """Waits so many seconds, or until `stop` is set; other tasks run in any case."""
    if wait_s <= 0:
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(wait_s):
            await stop.wait()
    except TimeoutError:
        pass
