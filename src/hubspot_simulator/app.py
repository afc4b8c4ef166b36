"""The ASGI application: authentication, limits, latency and faults around the handlers."""

import asyncio
import contextlib
import re
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from ipaddress import ip_address
from typing import Any
from uuid import uuid4

import msgspec

from hubspot_simulator import access, backdoor, state
from hubspot_simulator.calls import Answer, Call
from hubspot_simulator.errors import ApiError, not_found, rate_limited, unauthorised
from hubspot_simulator.faults import Fault, Faults, refusal
from hubspot_simulator.populate import populate_contacts, populate_mock_exams
from hubspot_simulator.populate_bookings import populate_bookings
from hubspot_simulator.portal import Portal, app_id
from hubspot_simulator.records import Source
from hubspot_simulator.routes import Handler, exempt, route, split
from hubspot_simulator.settings import Settings
from hubspot_simulator.webhooks import WebhookSender

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Sendable = tuple[int, bytes, Headers]

BACK_DOOR = "/_simulator/"
BODY_MAX = 10_000_000
AUTOSAVE_S = 2.0
AUTOSAVE_MAX_RECORDS = 50_000
_BEARER = re.compile(rb"[Bb]earer +(\S+)")
_encode = msgspec.json.Encoder().encode


class Simulator:
    """One portal behind HTTP. `portal` and `faults` are open to tests that run in the same process."""

    def __init__(self, settings: Settings, clock: Callable[[], float] | None = None) -> None:
        self.portal = Portal(settings, clock)
        self.faults = Faults()
        self.webhooks = WebhookSender(self.portal)
        self._late: set[asyncio.Task[None]] = set()
        self._sources: dict[str, Source] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or follow the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            if scope["path"].startswith(BACK_DOOR):
                await self._back_door(scope, receive, send)
            else:
                await self._api(scope, receive, send)

    # -- start and stop ----------------------------------------------------------------------------

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        saver: asyncio.Task[None] | None = None
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.start()
                if self.portal.settings.state is not None:
                    saver = asyncio.create_task(self._autosave())
                await send({"type": "lifespan.startup.complete"})
            else:
                if saver is not None:
                    saver.cancel()
                await self.webhooks.close()
                if self.portal.settings.state is not None:
                    state.save(self.portal, self.portal.settings.state)
                await send({"type": "lifespan.shutdown.complete"})
                return

    def start(self) -> None:
        """Load the state file, or fill the portal as the settings say."""
        settings = self.portal.settings
        if settings.state is not None and settings.state.exists():
            state.load(self.portal, settings.state)
            return
        if settings.contacts:
            populate_contacts(self.portal, settings.contacts, seed=settings.seed)
        if settings.mock_exams:
            populate_mock_exams(self.portal, settings.mock_exams, seed=settings.seed)
        populate_bookings(self.portal, settings.bookings, seed=settings.seed)

    async def _autosave(self) -> None:
        # A killed process should find its data again too; a large portal is written at its end only, because
        # writing stops the loop for as long as it takes.
        saved = -1
        while True:
            await asyncio.sleep(AUTOSAVE_S)
            path = self.portal.settings.state
            size = sum(len(store.ids) for store in self.portal.stores.values())
            if path is not None and size <= AUTOSAVE_MAX_RECORDS and self.portal.version != saved:
                saved = self.portal.version
                state.save(self.portal, path)

    # -- the API -----------------------------------------------------------------------------------

    async def _api(self, scope: Scope, receive: Receive, send: Send) -> None:
        portal, method = self.portal, scope["method"]
        token = _token(scope)
        if token is None or portal.settings.revoked or token != (portal.settings.token or token):
            portal.stats.unauthorised += 1
            await _send(send, *self._refusal(unauthorised()))
            return
        parts = split(scope["path"])
        found = route(method, parts) if parts else None
        kind, handler = found or ("unknown", None)
        app = str(app_id(token))
        arrived_s = portal.now_s()
        policy = portal.limiter.refuse(
            portal.limits, app=app, kind=kind, exempt=exempt(parts), at_s=arrived_s
        )
        if policy is not None:
            portal.stats.refused[policy] = portal.stats.refused.get(policy, 0) + 1
            await _send(
                send, *self._refusal(rate_limited(policy, str(uuid4())), self._limit_headers(kind, app))
            )
            return
        if kind in portal.stats.calls:
            portal.stats.calls[kind] += 1
        fault = self.faults.take(method, scope["path"])
        body = await _body(receive)
        if body is None:
            await _send(send, *self._refusal(ApiError(413, "Request entity too large")))
            return
        query = scope["query_string"].decode("latin-1")
        call = Call(method, parts, query, body, self._source(app), epoch=portal.epoch)
        if fault is not None:
            portal.stats.faults += 1
            await self._faulty(fault, call, handler, receive, send)
            return
        half_s = portal.settings.latency_ms / 2000
        if half_s:
            await asyncio.sleep(half_s)
        status, payload, headers = self._apply(call, handler)
        if half_s:
            await asyncio.sleep(half_s)
        await _send(send, status, payload, [*headers, *self._limit_headers(kind, app)])

    def _apply(self, call: Call, handler: Handler | None) -> Sendable:
        """Let the call take effect; one instant stamps everything it writes."""
        portal = self.portal
        call.at_ms = portal.now_ms()
        try:
            if call.epoch != portal.epoch:
                # It was on its way, or late, when the portal started over: the same ids are others' now.
                return self._refusal(ApiError(503, "The portal was reset.", category="SERVICE_UNAVAILABLE"))
            access.demand(portal, call.method, call.parts)
            answer = (handler or _nothing_here)(portal, call)
        except ApiError as error:
            return self._refusal(error)
        except Exception:  # noqa: BLE001 - a client must never see what went wrong in here.
            traceback.print_exc()
            return self._refusal(ApiError(500, "internal error", category="INTERNAL_ERROR"))
        finally:
            self.webhooks.flush()
        return answer.status, b"" if answer.body is None else _encode(answer.body), self._common(answer)

    async def _faulty(
        self, fault: Fault, call: Call, handler: Handler | None, receive: Receive, send: Send
    ) -> None:
        """Answer as the fault says; whether and when the call takes effect is the fault's choice too."""
        half_s = self.portal.settings.latency_ms / 2000
        await asyncio.sleep(half_s)
        done: Sendable | None = None
        if fault.late_apply_ms:
            self._keep(asyncio.create_task(self._apply_late(fault.late_apply_ms / 1000, call, handler)))
        elif fault.apply_first or (fault.status is None and not fault.cut):
            done = self._apply(call, handler)
        await asyncio.sleep(half_s + fault.delay_ms / 1000)
        if fault.cut:
            await _cut(receive)
            return
        answer = done if fault.status is None and done is not None else self._fault_answer(fault)
        await _send(send, *answer, cut_after=fault.cut_after)
        if fault.cut_after is not None:
            await _cut(receive)

    def _fault_answer(self, fault: Fault) -> Sendable:
        status = fault.status or 504
        _, payload, headers = self._refusal(refusal(status, str(uuid4())))
        own = {name.lower().encode(): value.encode() for name, value in fault.headers.items()}
        headers = [pair for pair in headers if pair[0] not in own] + list(own.items())
        if isinstance(fault.body, str):
            payload = fault.body.encode()
        elif fault.body is not None:
            payload = _encode(fault.body)
        return status, payload, headers

    async def _apply_late(self, after_s: float, call: Call, handler: Handler | None) -> None:
        await asyncio.sleep(after_s)
        self._apply(call, handler)

    def _keep(self, task: asyncio.Task[None]) -> None:
        # The loop holds tasks weakly; without this a late landing could be collected before it lands.
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    # -- answers -----------------------------------------------------------------------------------

    def _source(self, app: str) -> Source:
        return self._sources.setdefault(app, Source("INTEGRATION", app))

    def _limit_headers(self, kind: str, app: str) -> Headers:
        if kind == "search":
            return []
        return self.portal.limiter.headers(self.portal.limits, app=app, at_s=self.portal.now_s())

    def _common(self, answer: Answer | None = None) -> Headers:
        headers = [
            (b"date", formatdate(self.portal.now_s(), usegmt=True).encode()),
            (b"x-hubspot-correlation-id", str(uuid4()).encode()),
        ]
        if answer is None or answer.body is not None:
            headers.append((b"content-type", b"application/json;charset=utf-8"))
        return headers

    def _refusal(self, error: ApiError, more: Headers | None = None) -> Sendable:
        headers = [*self._common(), *(more or [])]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", str(error.retry_after_s).encode()))
        correlation_id = next(
            value.decode() for name, value in headers if name == b"x-hubspot-correlation-id"
        )
        return error.status, _encode(error.body(correlation_id)), headers

    # -- the back door -----------------------------------------------------------------------------

    async def _back_door(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Loopback clients only; neither counted nor delayed."""
        body = await _body(receive) or b""
        if not _loopback(scope.get("client")):
            await _send(send, *self._refusal(ApiError(403, "The back door is open on loopback only.")))
            return
        try:
            path = tuple(scope["path"].removeprefix(BACK_DOOR).strip("/").split("/"))
            answer = backdoor.answer(self, scope["method"], path, body)
            sent = answer.status, _encode(answer.body), self._common(answer)
        except ApiError as error:
            sent = self._refusal(error)
        except Exception:  # noqa: BLE001 - as above.
            traceback.print_exc()
            sent = self._refusal(ApiError(500, "internal error", category="INTERNAL_ERROR"))
        finally:
            self.webhooks.flush()
        await _send(send, *sent)


def create_app(settings: Settings | None = None, clock: Callable[[], float] | None = None) -> Simulator:
    """The ASGI app of one portal; `clock` gives seconds since the epoch and is there for tests."""
    return Simulator(settings or Settings(), clock)


def _nothing_here(portal: Portal, call: Call) -> Answer:  # noqa: ARG001 - the shape of a handler.
    raise not_found("resource not found")


def _token(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            match = _BEARER.fullmatch(value)
            return match[1].decode("latin-1") if match else None
    return None


def _loopback(client: tuple[str, int] | None) -> bool:
    if client is None:
        return False
    try:
        address = ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


async def _body(receive: Receive) -> bytes | None:
    """The body of a request; None when it is larger than any call needs."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > BODY_MAX:
            return None
        if not message.get("more_body"):
            break
    return b"".join(chunks)


async def _send(
    send: Send, status: int, payload: bytes, headers: Headers, *, cut_after: int | None = None
) -> None:
    """Send an answer; with `cut_after` only so many bytes of the body it promises."""
    length = [] if status == 204 else [(b"content-length", str(len(payload)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    if cut_after is None:
        await send({"type": "http.response.body", "body": payload})
    else:
        await send({"type": "http.response.body", "body": payload[:cut_after], "more_body": True})


async def _cut(receive: Receive) -> None:
    """Close the connection without an answer.

    ASGI has no word for it, so the server's own transport is asked.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionAbortedError("cut")
    transport.abort()
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(1):
            while (await receive())["type"] != "http.disconnect":
                pass
