"""Bare ASGI handlers on our own pool and SQL: read the body, ask the database, send its answer."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from tallybook.postgres.pool import Database

_db = Database(os.environ["DATABASE_URL"], size=16)
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_NO_CALLER = {"limit_key": None, "limit_per_min": None, "contact_id": None, "epoch": None}
_NO_REQUEST = {
    "attending_location": None,
    "dominant_hand": None,
    "actor": "key:bench",
    "override_reason": None,
    "dry_run": False,
    "credential": "key:bench",
    "route": None,
    "key": None,
    "fingerprint": None,
}


async def check(scope: Scope, receive: Receive, send: Send) -> None:
    """A credit check."""
    if scope["type"] == "http":
        body = await _read(receive)
        params = {"source": "database", "mock_type": body.get("mock_type")}
        await _answer("check_credits", body, params, send)
    else:
        await lifespan(receive, send)


async def book(scope: Scope, receive: Receive, send: Send) -> None:
    """A booking."""
    if scope["type"] == "http":
        body = await _read(receive)
        await _answer("book_seat", body, {**_NO_REQUEST, "mock_exam": body.get("mock_exam_id")}, send)
    else:
        await lifespan(receive, send)


async def charge(scope: Scope, receive: Receive, send: Send) -> None:
    """A charge for a metered action."""
    await _metered("charge_actions", scope, receive, send)


async def hold(scope: Scope, receive: Receive, send: Send) -> None:
    """A hold for a metered action."""
    await _metered("hold_credits", scope, receive, send)


async def check_action(scope: Scope, receive: Receive, send: Send) -> None:
    """A check of a metered action."""
    await _metered("check_actions", scope, receive, send)


async def _metered(query: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        await lifespan(receive, send)
        return
    body = await _read(receive)
    if not body:
        await respond(send, 200, b"ready")
        return
    actions = msgspec.json.encode([{"action": body["action"]}]).decode()
    given = {"contact": body["contact"], "actions": actions, "expires_in_s": body.get("expires_in_s")}
    row = (await _db.fetch_all(query, {**_NO_REQUEST, "metadata": None, **given}))[0]
    if row[0] is not None:
        await respond(send, 409, row[0].encode())
        return
    await respond(send, 201 if row[2] == "created" else 200, b'{"success":true,"data":' + row[3] + b"}")


async def _read(receive: Receive) -> dict[str, Any]:
    """The body; an empty one is the question whether the server is ready."""
    message = await receive()
    return _decode(message["body"]) if message["body"] else {}


async def _answer(query: str, body: dict[str, Any], fixed: dict[str, Any], send: Send) -> None:
    if not body:
        await respond(send, 200, b"ready")
        return
    params = {**_NO_CALLER, **fixed, "student_id": body["student_id"], "email": body["email"]}
    row = (await _db.fetch_all(query, params))[0]
    if row[0] is not None:
        await respond(send, 409, row[0].encode())
        return
    await respond(send, 201 if row[2] == "created" else 200, b'{"success":true,"data":' + row[3] + b"}")


async def respond(send: Send, status: int, body: bytes) -> None:
    """Sends a whole answer."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Receive, send: Send) -> None:
    """Starts and stops with the server."""
    for _ in range(2):
        message = await receive()
        await send({"type": message["type"] + ".complete"})
