"""The one ASGI layer in front of every route: find, admit, read, answer, then log and count.

Everything that holds for all requests is here and nowhere else, in one function call per request: a chain of
middleware would cost more than the work itself on a look-up that takes half a millisecond.
"""

from __future__ import annotations

import os
import re
from asyncio import CancelledError
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from tallybook.api.callers import Access, Doorkeeper, check_permission
from tallybook.api.cors import Cors
from tallybook.api.logs import REQUEST_ID, describe_exception
from tallybook.api.reading import ClientGoneError, check_media_type, read_body
from tallybook.api.replies import BEARER, Header, Reply, failure
from tallybook.api.route import NO_QUERY, Call, Route, RouteTable, is_closed_observing
from tallybook.api.services import Services
from tallybook.api.statuses import status_of
from tallybook.domain.callers import Caller
from tallybook.domain.errors import Observing, TallybookError

_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BASIC = b'Basic realm="tallybook staff", charset="UTF-8"'
_CLIENT_GONE = 499
_UNMATCHED = "unmatched"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
# Answers are about persons and about this moment: nobody in between may keep or reinterpret them.
_ALWAYS: tuple[Header, ...] = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class _Exchange:
    """What is known about a request so far; the log line is made from it, however far the request came."""

    __slots__ = ("caller", "code", "headers", "request_id", "route", "started_s")

    def __init__(self, headers: Mapping[bytes, bytes], request_id: str) -> None:
        self.headers = headers
        self.request_id = request_id
        self.started_s = perf_counter()
        self.route: Route | None = None
        self.caller: Caller | None = None
        self.code: str | None = None


class Gate:
    """The API as an ASGI application."""

    def __init__(
        self,
        services: Services,
        *,
        routes: RouteTable,
        doorkeeper: Doorkeeper,
        cors: Cors | None,
        lifespan: ASGIApp,
        observe: bool = False,
    ) -> None:
        self._services = services
        self._routes = routes
        self._doorkeeper = doorkeeper
        self._metrics = services.metrics
        self._cors = cors
        self._lifespan = lifespan
        self._observe = observe
        self._log = structlog.get_logger("tallybook.api").bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; open and close with the server."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        headers = dict(scope["headers"])
        given_id = headers.get(b"x-request-id")
        if given_id is not None and _REQUEST_ID.fullmatch(given_id):
            request_id = given_id.decode()
        else:
            request_id = os.urandom(12).hex()
        exchange = _Exchange(headers, request_id)
        REQUEST_ID.set(request_id)
        self._metrics.in_flight += 1
        # What stands when nothing can be sent any more.
        status, reply = _CLIENT_GONE, None
        try:
            reply = await self._reply(exchange, scope, receive)
            await self._send(reply, exchange, send)
            status = reply.status
        except (ClientGoneError, OSError):
            # Nobody is left to answer. What was decided stands, and a repeat finds it.
            pass
        except CancelledError:
            status = 500 if reply is None else reply.status
            raise
        finally:
            self._metrics.in_flight -= 1
            self._account(exchange, scope, status, reply)

    async def _reply(self, exchange: _Exchange, scope: Scope, receive: Receive) -> Reply:
        try:
            return await self._answer(exchange, scope, receive)
        except TallybookError as error:
            if status_of(type(error)) == 500:
                self._log.error("request_failed", route=_template(exchange), **describe_exception(error))
            exchange.code = error.code
            staff = exchange.route is not None and exchange.route.access is Access.DOCS
            return failure(error, request_id=exchange.request_id, challenge=_BASIC if staff else BEARER)
        except (ClientGoneError, CancelledError):
            raise
        except Exception as error:  # noqa: BLE001  A bug must cost one request, be told, and show nothing of itself.
            self._log.error("request_failed", route=_template(exchange), **describe_exception(error))
            exchange.code = TallybookError.code
            return failure(TallybookError(), request_id=exchange.request_id)

    async def _answer(self, exchange: _Exchange, scope: Scope, receive: Receive) -> Reply:
        method = scope["method"]
        if method == "OPTIONS":
            return self._options(exchange, scope)
        (route, access, handler, body_reader, query_reader), params = self._routes.find(method, scope)
        exchange.route = route
        caller = await self._doorkeeper.admit(access, scope, exchange.headers)
        exchange.caller = caller
        if route.permission is not None:
            check_permission(caller, route.permission)
        if self._observe and is_closed_observing(route):
            raise Observing(mode="observe")
        body: Any = None
        query: Any = None
        query_string = scope["query_string"]
        if query_reader is not None:
            query = query_reader.from_query(query_string)
        elif query_string:
            NO_QUERY.from_query(query_string)
        if route.raw_body_limit_bytes is not None:
            body = await read_body(receive, exchange.headers, limit_bytes=route.raw_body_limit_bytes)
        elif body_reader is not None:
            raw = await read_body(receive, exchange.headers)
            if raw:
                check_media_type(exchange.headers)
            body = body_reader.from_json(raw)
        call = Call(
            route=route,
            caller=caller,
            request_id=exchange.request_id,
            scope=scope,
            headers=exchange.headers,
            params=params,
            query=query,
            body=body,
        )
        return await handler(self._services, call)

    def _options(self, exchange: _Exchange, scope: Scope) -> Reply:
        allowed = ", ".join(self._routes.allowed(scope)).encode()
        headers: tuple[Header, ...] = ((b"allow", allowed),)
        if self._cors is not None:
            headers += self._cors.preflight(exchange.headers, allowed)
        return Reply(204, b"", headers)

    async def _send(self, reply: Reply, exchange: _Exchange, send: Send) -> None:
        body = reply.body
        headers = [
            *reply.headers,
            *_ALWAYS,
            (b"x-request-id", exchange.request_id.encode()),
        ]
        if reply.status != 204:
            headers.append((b"content-length", str(len(body)).encode()))
        if self._cors is not None:
            headers += self._cors.headers(exchange.headers)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _account(self, exchange: _Exchange, scope: Scope, status: int, reply: Reply | None) -> None:
        seconds = perf_counter() - exchange.started_s
        route = _template(exchange)
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        lookup = reply.lookup if reply is not None else None
        self._metrics.observe(route=route, method=method, status=status, lookup=lookup, seconds=seconds)
        caller = exchange.caller
        fields: dict[str, object] = {
            "route": route,
            "method": method,
            "status": status,
            "ms": round(seconds * 1000, 2),
        }
        if exchange.code is not None:
            fields["code"] = exchange.code
        if caller is not None:
            fields["caller"] = caller.kind
            contact_id = caller.contact_id or (reply.contact_id if reply is not None else None)
            if contact_id is not None:
                fields["contact"] = contact_id
            if caller.scopes:
                fields["key"] = caller.credential
        self._log.info(_EVENTS.get(lookup, "request"), **fields)


_EVENTS: Mapping[str | None, str] = {"hit": "cache_hit", "miss": "cache_miss"}


def _template(exchange: _Exchange) -> str:
    return exchange.route.path if exchange.route is not None else _UNMATCHED
