"""Connections to PostgreSQL, and the one way to send a named statement.

The pool is a minimal one of autocommit connections: every use is a single statement, so there is nothing to
begin, commit or reset, and the connection used last (whose plans and caches are warm) is used next. Against
psycopg's own pool it serves half as many requests again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import psycopg
from psycopg import AsyncConnection
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from tallybook.domain.errors import DatabaseUnavailable
from tallybook.postgres.answers import Answer, domain_error, refusal
from tallybook.postgres.queries import sql

Row = tuple[Any, ...]

_SETTLE_SESSION = "settle_session"
_ATTEMPTS = 3
_DOWN_FOR_S = 0.5
# The server ends a statement after 15 s; one that has not even said so by then is frozen or out of reach.
_ANSWER_WITHIN_S = 20.0


class _JsonText(Loader):
    """JSON stays the bytes PostgreSQL sent: answers are passed on, not parsed."""

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


@dataclass(frozen=True, slots=True)
class PoolUse:
    """How busy the pool is: open connections, those in use, and callers waiting for one."""

    open: int
    in_use: int
    waiting: int
    size: int


class Database:
    """A pool of connections and the named statements sent over it."""

    def __init__(
        self,
        uri: str,
        *,
        size: int = 16,
        transaction_pooler: bool = False,
        acquire_timeout_s: float = 5.0,
        connect_timeout_s: int = 3,
        application_name: str = "tallybook",
    ) -> None:
        self._uri = uri
        self._size = size
        self._pooler = transaction_pooler
        self._acquire_timeout_s = acquire_timeout_s
        self._connect = {"connect_timeout": connect_timeout_s, "application_name": application_name}
        self._idle: list[AsyncConnection[Row]] = []
        self._waiters: deque[asyncio.Future[AsyncConnection[Row] | None]] = deque()
        self._open = 0
        self._down_until = 0.0
        self._closed = False
        self._on_answer: Callable[[str, Mapping[str, Any]], None] | None = None

    def watch_answers(self, told: Callable[[str, Mapping[str, Any]], None]) -> None:
        """`told` is called with name and parameters of every statement that was answered."""
        self._on_answer = told

    @property
    def use(self) -> PoolUse:
        """The pool's present use, for the metrics."""
        return PoolUse(self._open, self._open - len(self._idle), len(self._waiters), self._size)

    async def answer(self, query: str, params: Mapping[str, Any]) -> Answer:
        """Asks a deciding function; a refusal is raised as its domain error.

        Deadlocks and serialisation failures are tried again, at most twice.
        """
        row = (await self._send(query, params))[0]
        refused, details, outcome, data, replayed = row
        if refused is not None:
            raise refusal(refused, None if details is None else _parse(details))
        return Answer(data, outcome, replayed)

    async def fetch_all(self, query: str, params: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows of a named statement; JSON columns are bytes."""
        return await self._send(query, params or {})

    async def fetch_one(self, query: str, params: Mapping[str, Any] | None = None) -> Row | None:
        """The first row of a named statement, or None."""
        rows = await self._send(query, params or {})
        return rows[0] if rows else None

    async def _send(self, query: str, params: Mapping[str, Any]) -> list[Row]:
        # The text is a file of ours, never put together from input.
        text = sql(query)
        for attempt in range(1, _ATTEMPTS + 1):
            connection = await self._acquire()
            try:
                async with asyncio.timeout(_ANSWER_WITHIN_S):
                    cursor = await connection.execute(text, params)
                    rows = await cursor.fetchall() if cursor.description else []
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:
                self._release(connection)
                if attempt == _ATTEMPTS:
                    raise domain_error(error) or error from error
            except psycopg.Error as error:
                self._release(connection)
                raise domain_error(error) or error from error
            except TimeoutError as error:
                await self._discard(connection)
                raise DatabaseUnavailable from error
            except BaseException:
                # Cancelled in the middle: what the server still does with this connection is unknown.
                await self._discard(connection)
                raise
            else:
                self._release(connection)
                if self._on_answer is not None:
                    self._on_answer(query, params)
                return rows
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[Row]]:
        """A connection outside the pool's count, for work that needs a transaction or a cursor."""
        connection = await self._open_connection()
        try:
            yield connection
        except psycopg.Error as error:
            raise domain_error(error) or error from error
        finally:
            await connection.close()

    async def close(self) -> None:
        """Closes what is idle; what is in use closes when it comes back."""
        self._closed = True
        while self._idle:
            await self._discard(self._idle.pop())

    async def _acquire(self) -> AsyncConnection[Row]:
        while True:
            if self._idle:
                return self._idle.pop()
            if self._open < self._size:
                return await self._grow()
            waiter: asyncio.Future[AsyncConnection[Row] | None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                async with asyncio.timeout(self._acquire_timeout_s):
                    connection = await waiter
            except TimeoutError as error:
                raise DatabaseUnavailable("Too many requests are waiting for the database.") from error
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled() and (given := waiter.result()) is not None:
                    self._release(given)
                raise
            if connection is not None:
                return connection

    async def _grow(self) -> AsyncConnection[Row]:
        if time.monotonic() < self._down_until:
            raise DatabaseUnavailable
        self._open += 1
        try:
            return await self._open_connection()
        except BaseException as error:
            self._open -= 1
            self._wake(None)
            if isinstance(error, psycopg.Error):
                # For a moment nobody else needs to find out by waiting.
                self._down_until = time.monotonic() + _DOWN_FOR_S
                raise domain_error(error) or error from error
            raise

    async def _open_connection(self) -> AsyncConnection[Row]:
        connection = await AsyncConnection.connect(
            self._uri,
            autocommit=True,
            prepare_threshold=None if self._pooler else 0,
            **cast(dict[str, Any], self._connect),
        )
        for name in ("json", "jsonb"):
            connection.adapters.register_loader(name, _JsonText)
        if not self._pooler:
            # A transaction pooler keeps no session state; there, DATABASE_URL names the application's role.
            try:
                await connection.execute(sql(_SETTLE_SESSION))
            except BaseException:
                connection.pgconn.finish()
                raise
        return connection

    def _release(self, connection: AsyncConnection[Row]) -> None:
        if connection.closed or self._closed:
            # One broken connection means a restarted server: the idle ones are broken too.
            broken, self._idle = [connection, *self._idle], []
            for each in broken:
                self._forget(each)
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def _forget(self, connection: AsyncConnection[Row]) -> None:
        self._open -= 1
        connection.pgconn.finish()
        self._wake(None)

    async def _discard(self, connection: AsyncConnection[Row]) -> None:
        self._open -= 1
        with suppress(psycopg.Error):
            await connection.close()
        self._wake(None)

    def _wake(self, connection: AsyncConnection[Row] | None) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return


def _parse(details: bytes) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(details))
