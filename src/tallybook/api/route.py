"""One route of the API, and the table that finds it: a dictionary, and Starlette's patterns for ids."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from starlette.routing import compile_path
from starlette.types import Scope

from tallybook.api.callers import Access
from tallybook.api.problems import invalid
from tallybook.api.reading import Shape, ShapeReader, check_text
from tallybook.api.replies import Reply
from tallybook.domain.callers import Caller
from tallybook.domain.errors import MethodNotAllowed, NotFound, TallybookError
from tallybook.domain.staff import Permission

if TYPE_CHECKING:
    from tallybook.api.services import Services

_LONGEST_PARAM = 200


@dataclass(slots=True, kw_only=True)
class Call:
    """One request on its way through a route, read and admitted."""

    route: Route
    caller: Caller
    request_id: str
    scope: Scope
    headers: Mapping[bytes, bytes]
    params: Mapping[str, str]
    query: Any
    body: Any


Handler = Callable[["Services", Call], Awaitable[Reply]]


class OtherAnswer(NamedTuple):
    """A further success status, when it comes, and the type of its `data`."""

    status: int
    meaning: str
    answer: Any


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Route:
    """An address: who may call it, what it takes, what it gives. The OpenAPI document is made from these."""

    method: str
    path: str
    access: Access
    handler: Handler
    summary: str
    answer: Any = None
    """The type of `data`, for the document; None when the answer is no envelope."""
    status: int = 200
    also: tuple[OtherAnswer, ...] = ()
    body: type[Shape] | None = None
    query: type[Shape] | None = None
    raw_body_limit_bytes: int | None = None
    """For a body that the handler gets as it came, since a signature covers every byte of it."""
    errors: tuple[type[TallybookError], ...] = ()
    """What it may refuse beyond what every route of its kind may."""
    idempotent: bool = False
    """Whether it takes an Idempotency-Key."""
    allowed_observing: bool = False
    """Whether it stays open in observe mode although its method is one of those that change things."""
    permission: Permission | None = None
    """For staff: what its caller must be allowed to do."""
    media_type: str = "application/json"
    tag: str = "student"


def is_closed_observing(route: Route) -> bool:
    """Whether observe mode refuses this route: all that may decide something, but for what is named."""
    return route.method != "GET" and not route.allowed_observing


class ReadyRoute(NamedTuple):
    """A route with everything prepared that does not depend on the request."""

    route: Route
    access: Access
    handler: Handler
    body: ShapeReader[Shape] | None
    query: ShapeReader[Shape] | None


class Found(NamedTuple):
    """A route and the parameters of its path."""

    ready: ReadyRoute
    params: Mapping[str, str]


_NO_PARAMS: Mapping[str, str] = {}


class RouteTable:
    """Finds routes by method and path. A fixed path wins over a pattern, an earlier pattern over a later."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._fixed: dict[str, dict[str, Found]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, ReadyRoute]]] = []
        by_pattern: dict[str, dict[str, ReadyRoute]] = {}
        for route in self.routes:
            ready = _ready(route)
            if "{" not in route.path:
                methods = self._fixed.setdefault(route.path, {})
                _add(methods, route.method, Found(ready, _NO_PARAMS))
                continue
            if route.path not in by_pattern:
                by_pattern[route.path] = {}
                self._patterns.append((compile_path(route.path)[0], by_pattern[route.path]))
            _add(by_pattern[route.path], route.method, ready)

    def find(self, method: str, scope: Scope) -> Found:
        """The route of this request. Raises NotFound, MethodNotAllowed, ValidationError for parameters."""
        fixed = self._fixed.get(scope["path"])
        if fixed is not None:
            found = fixed.get(method)
            if found is None:
                raise _wrong_method(fixed)
            return found
        allowed: set[str] = set()
        # Undecoded, so that an id may hold %2F.
        raw_path = scope.get("raw_path") or scope["path"].encode()
        path = raw_path.decode("latin-1")
        for pattern, methods in self._patterns:
            match = pattern.match(path)
            if match is None:
                continue
            if method in methods:
                params = {name: _param(name, text) for name, text in match.groupdict().items()}
                return Found(methods[method], params)
            allowed.update(methods)
        if allowed:
            raise _wrong_method(allowed)
        raise NotFound

    def allowed(self, scope: Scope) -> list[str]:
        """The methods of this path. Raises NotFound."""
        try:
            self.find("", scope)
        except MethodNotAllowed as error:
            return list(error.details["allowed"])
        raise NotFound


def _ready(route: Route) -> ReadyRoute:
    return ReadyRoute(
        route,
        route.access,
        route.handler,
        ShapeReader(route.body) if route.body is not None else None,
        ShapeReader(route.query) if route.query is not None else None,
    )


def _add(methods: dict[str, Any], method: str, found: Any) -> None:
    for name in (method, "HEAD") if method == "GET" else (method,):
        if name in methods:
            raise ValueError(f"Two routes for one address: {method} {found}")
        methods[name] = found


def _wrong_method(allowed: Iterable[str]) -> MethodNotAllowed:
    return MethodNotAllowed(allowed=sorted({*allowed, "OPTIONS"}))


def _param(name: str, text: str) -> str:
    try:
        value = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise invalid(name, "is not UTF-8") from None
    check_text(name, value, longest=_LONGEST_PARAM)
    return value


NO_QUERY = ShapeReader(Shape)
"""Reads the query of a route that takes none: anything given is refused."""
