"""Tells other processes through Redis whose credits changed. Losing it loses nothing but freshness."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

_CHANNEL = "tallybook:credits"
_PATIENCE_S = 2.0
_AGAIN_AFTER_S = 1.0
_log = structlog.get_logger(__name__)


class ChangeBus:
    """Publishes and hears which contacts changed, as texts. It never raises and never blocks a caller."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=None, socket_connect_timeout=_PATIENCE_S, decode_responses=True
        )
        self._sending: set[asyncio.Task[None]] = set()

    def tell(self, contact: str) -> None:
        """Sends it, some time soon."""
        task = asyncio.get_running_loop().create_task(self._send(contact))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def hear(self, changed: Callable[[str], None], *, everybody: str) -> None:
        """Calls `changed` for each text that comes, until cancelled; with `everybody` after every gap."""
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(_CHANNEL)
                    # What was said before this moment was not heard.
                    changed(everybody)
                    async for message in channel.listen():
                        changed(str(message["data"]))
            except (RedisError, OSError) as error:
                _log.warning("redis_away", error=type(error).__name__)
            changed(everybody)
            await asyncio.sleep(_AGAIN_AFTER_S)

    async def aclose(self) -> None:
        """Sends what waits, briefly, and closes the connections."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await asyncio.gather(*self._sending, return_exceptions=True)
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    async def _send(self, contact: str) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._redis.publish(_CHANNEL, contact)
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("redis_away", error=type(error).__name__)
