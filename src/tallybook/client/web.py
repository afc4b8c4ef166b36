"""`requires_credits`: a handler of FastAPI, Starlette or Flask that is paid for, or does not run."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import math
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar, cast

from tallybook.client.blocking import BlockingTallybook
from tallybook.client.connection import Actions, Tallybook
from tallybook.client.errors import CreditsRefused, NotReachable
from tallybook.client.grace import Grace

Handler = TypeVar("Handler", bound=Callable[..., Any])

_NOT_REACHABLE: Mapping[str, Any] = {
    "success": False,
    "error": {
        "code": "CREDITS_UNAVAILABLE",
        "message": "Credits cannot be checked at the moment. Nothing was taken; try again shortly.",
        "details": {},
    },
}


@dataclass(frozen=True, slots=True)
class _Terms:
    """What is paid, by whom, for how long it is set aside, and what may be given on trust."""

    actions: Actions
    contact: Callable[..., str]
    expires_in_s: int
    grace: Grace | None


def requires_credits(
    actions: Actions,
    *,
    client: Tallybook | BlockingTallybook,
    contact: Callable[..., str],
    expires_in_s: int = 900,
    grace: Grace | None = None,
) -> Callable[[Handler], Handler]:
    """Holds before the handler runs, captures when it succeeded, releases when it failed.

    An `async def` handler (FastAPI, Starlette) takes a `Tallybook`, a plain one (Flask, and theirs too) a
    `BlockingTallybook`. `contact` gets the handler's own arguments and says who pays. An exception or an
    answer of status 400 and above is a failure and costs nothing. An answer is paid before it is sent: what
    fails later, in a stream, is not noticed. Whoever cannot pay gets Tallybook's own 402
    answer; when Tallybook cannot be reached the answer is 503 and the handler does not run, unless `grace`
    allows this action so many credits on trust.
    """
    terms = _Terms(actions, contact, expires_in_s, grace)

    def decorate(handler: Handler) -> Handler:
        if inspect.iscoroutinefunction(handler):
            if not isinstance(client, Tallybook):
                raise TypeError("an async handler needs a Tallybook, not a BlockingTallybook")
            paid = _for_async(handler, client, terms)
        else:
            if not isinstance(client, BlockingTallybook):
                raise TypeError("a handler without async needs a BlockingTallybook")
            paid = _for_plain(handler, client, terms)
        return cast(Handler, functools.wraps(handler)(paid))

    return decorate


def _for_async(handler: Callable[..., Any], client: Tallybook, terms: _Terms) -> Callable[..., Any]:
    async def paid(*args: Any, **kwargs: Any) -> Any:
        payer = terms.contact(*args, **kwargs)
        try:
            hold = await client.hold(payer, terms.actions, expires_in_s=terms.expires_in_s)
        except CreditsRefused as refused:
            return _answer(refused)
        except NotReachable as away:
            return await _on_trust(away, payer, terms, lambda: handler(*args, **kwargs))
        try:
            result = await handler(*args, **kwargs)
        except BaseException:
            await asyncio.shield(client.give_back(hold.id))
            raise
        if _has_failed(result):
            await asyncio.shield(client.give_back(hold.id))
            return result
        try:
            await client.capture_or_give_back(hold.id)
        except (CreditsRefused, NotReachable) as problem:
            return _answer(problem)
        return result

    return paid


def _for_plain(handler: Callable[..., Any], client: BlockingTallybook, terms: _Terms) -> Callable[..., Any]:
    def paid(*args: Any, **kwargs: Any) -> Any:
        payer = terms.contact(*args, **kwargs)
        try:
            hold = client.hold(payer, terms.actions, expires_in_s=terms.expires_in_s)
        except CreditsRefused as refused:
            return _answer(refused)
        except NotReachable as away:
            return _on_trust_plain(away, payer, terms, lambda: _whole(handler(*args, **kwargs)))
        try:
            result = _whole(handler(*args, **kwargs))
        except BaseException:
            client.give_back(hold.id)
            raise
        if _has_failed(result):
            client.give_back(hold.id)
            return result
        try:
            client.capture_or_give_back(hold.id)
        except (CreditsRefused, NotReachable) as problem:
            return _answer(problem)
        return result

    return paid


async def _on_trust(away: NotReachable, payer: str, terms: _Terms, work: Callable[[], Awaitable[Any]]) -> Any:
    key = await asyncio.to_thread(terms.grace.take, payer, terms.actions) if terms.grace else None
    if terms.grace is None or key is None:
        return _answer(away)
    try:
        result = await work()
    except BaseException:
        terms.grace.forget(key)
        raise
    if _has_failed(result):
        await asyncio.to_thread(terms.grace.forget, key)
    return result


def _on_trust_plain(away: NotReachable, payer: str, terms: _Terms, work: Callable[[], Any]) -> Any:
    key = terms.grace.take(payer, terms.actions) if terms.grace else None
    if terms.grace is None or key is None:
        return _answer(away)
    try:
        result = work()
    except BaseException:
        terms.grace.forget(key)
        raise
    if _has_failed(result):
        terms.grace.forget(key)
    return result


def _flask() -> ModuleType | None:
    """Flask, while it is what answers. A plain handler may be FastAPI's or Starlette's too."""
    flask = sys.modules.get("flask")
    return flask if flask is not None and flask.has_request_context() else None


def _whole(result: Any) -> Any:
    """What a handler gave, with the status that Flask makes of it."""
    flask = _flask()
    return result if flask is None else flask.make_response(result)


def _has_failed(result: Any) -> bool:
    status = getattr(result, "status_code", 200)
    return isinstance(status, int) and status >= 400


def _answer(problem: CreditsRefused | NotReachable) -> Any:
    status, body, headers = _problem(problem)
    if (flask := _flask()) is not None:
        return flask.Response(body, status, headers, mimetype="application/json")
    from starlette.responses import Response  # noqa: PLC0415 - only programs that use it have it

    return Response(body, status, headers, media_type="application/json")


def _problem(problem: CreditsRefused | NotReachable) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers. Only what the payer can act on is theirs to see; the rest is our trouble."""
    if isinstance(problem, CreditsRefused) and problem.status == 402:
        return 402, json.dumps(problem.envelope), {}
    wait_s = problem.retry_after_s if isinstance(problem, NotReachable) else 30.0
    return 503, json.dumps(_NOT_REACHABLE), {"Retry-After": str(math.ceil(wait_s))}
