"""The fastest bare handler found: asyncpg, a pool that resets nothing on release, the same SQL."""

from __future__ import annotations

import os
import re

import asyncpg
import msgspec
from starlette.types import Receive, Scope, Send

from harness.bare_psycopg import lifespan, respond
from tallybook.postgres.queries import sql

_POOL_SIZE = 16
_decode = msgspec.json.Decoder().decode
_names: list[str] = []


def _numbered(match: re.Match[str]) -> str:
    if match[1] not in _names:
        _names.append(match[1])
    return f"${_names.index(match[1]) + 1}"


_check = re.sub(r"%\((\w+)\)s", _numbered, sql("check_credits"))
_idle: list[tuple[asyncpg.Connection, asyncpg.prepared_stmt.PreparedStatement]] = []
_FIXED = {"limit_key": None, "limit_per_min": None, "contact_id": None, "epoch": None, "source": "database"}


async def check(scope: Scope, receive: Receive, send: Send) -> None:
    """A credit check."""
    if scope["type"] != "http":
        await lifespan(receive, send)
        return
    message = await receive()
    if not message["body"]:
        # The first call of all, which waits for the server to be ready.
        _idle.extend([await _connect() for _ in range(_POOL_SIZE)])
        await respond(send, 200, b"ready")
        return
    params = _FIXED | _decode(message["body"])
    held = _idle.pop()
    try:
        row = await held[1].fetchrow(*[params[name] for name in _names])
    finally:
        _idle.append(held)
    await respond(send, 200, b'{"success":true,"data":' + row[3].encode() + b"}")


async def _connect() -> tuple[asyncpg.Connection, asyncpg.prepared_stmt.PreparedStatement]:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute(sql("settle_session"))
    return connection, await connection.prepare(_check)
