"""A load generator as light as the work it measures: HTTP/1.1 on raw streams, with connections kept open.

A general client costs about a millisecond of CPU per request; on a small machine it would measure itself.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_LARGEST_HEAD = 65_536


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go."""

    host: str
    port: int
    path_prefix: str
    tls: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str) -> Target:
        """The target behind an http(s) URL. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http:// or https:// address")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(parts.hostname, parts.port or (443 if tls else 80), parts.path.rstrip("/"), tls)


@dataclass(slots=True)
class Outcome:
    """What happened: one status per request (0: no answer), and the milliseconds until each answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    duration_s: float = 0.0


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> tuple[int, bool]:
        """Sends one request and reads the whole answer: its status, and whether the connection stays open."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        lower = head.lower()
        at = lower.find(b"\r\ncontent-length:")
        if at >= 0:
            end = lower.index(b"\r\n", at + 2)
            await self.reader.readexactly(int(lower[at + 17 : end]))
        elif b"\r\ntransfer-encoding: chunked" in lower:
            await self._read_chunks()
        return status, b"\r\nconnection: close" not in lower

    async def close(self) -> None:
        """Closes it, whatever the other side does."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def _read_chunks(self) -> None:
        while True:
            size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
            await self.reader.readexactly(size + 2)
            if size == 0:
                return


class LoadClient:
    """Sends prepared requests in waves, one wave every interval."""

    def __init__(self, target: Target, *, timeout_s: float = 30.0) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._idle: list[_Connection] = []

    def request(self, path: str, body: bytes, *, headers: dict[str, str]) -> bytes:
        """The bytes of one POST of JSON."""
        lines = [
            f"POST {self._target.path_prefix}{path} HTTP/1.1",
            f"Host: {self._target.host}:{self._target.port}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def run(self, waves: Sequence[Sequence[bytes]], *, interval_s: float) -> Outcome:
        """Starts each wave at its own time, whether or not earlier ones were answered, and waits for all."""
        outcome = Outcome()
        loop = asyncio.get_running_loop()
        started = loop.time()
        tasks: list[asyncio.Task[None]] = []
        for number, wave in enumerate(waves):
            await asyncio.sleep(max(0.0, started + number * interval_s - loop.time()))
            tasks += [asyncio.create_task(self._send(request, outcome)) for request in wave]
        await asyncio.gather(*tasks)
        outcome.duration_s = loop.time() - started
        while self._idle:
            await self._idle.pop().close()
        return outcome

    async def _send(self, request: bytes, outcome: Outcome) -> None:
        began = time.perf_counter()
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = self._idle.pop() if self._idle else await self._connect()
                status, stays_open = await connection.ask(request)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            # TimeoutError is an OSError, IncompleteReadError an EOFError.
            outcome.statuses[0] += 1
            outcome.problems[type(error).__name__] += 1
            if connection is not None:
                await connection.close()
            return
        outcome.latencies_ms.append((time.perf_counter() - began) * 1000)
        outcome.statuses[status] += 1
        if stays_open:
            self._idle.append(connection)
        else:
            await connection.close()

    async def _connect(self) -> _Connection:
        target = self._target
        reader, writer = await asyncio.open_connection(
            target.host, target.port, ssl=target.tls, limit=_LARGEST_HEAD
        )
        return _Connection(reader, writer)
