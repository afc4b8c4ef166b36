"""`requires_credits`: a handler of FastAPI, Starlette or Flask that is paid for, or does not run."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

    An `async def` handler (FastAPI, Starlette) takes a `Tallybook`, a plain one (Flask) a
    `BlockingTallybook`. `contact` gets the handler's own arguments and says who pays. An exception or an
    answer of status 400 and above is a failure and costs nothing. Whoever cannot pay gets Tallybook's own 402
    answer; when Tallybook cannot be reached the answer is 503 and the handler does not run, unless `grace`
    allows this action so many credits on trust.
    """
    terms = _Terms(actions, contact, expires_in_s, grace)

    def decorate(handler: Handler) -> Handler:
        if inspect.iscoroutinefunction(handler):
            if not isinstance(client, Tallybook):
                raise TypeError("an async handler needs a Tallybook, not a BlockingTallybook")
            paid = _for_asgi(handler, client, terms)
        else:
            if not isinstance(client, BlockingTallybook):
                raise TypeError("a handler without async needs a BlockingTallybook")
            paid = _for_flask(handler, client, terms)
        return cast(Handler, functools.wraps(handler)(paid))

    return decorate


def _for_asgi(handler: Callable[..., Any], client: Tallybook, terms: _Terms) -> Callable[..., Any]:
    from starlette.responses import Response  # noqa: PLC0415 - only programs that use it have it

    def answer(problem: CreditsRefused | NotReachable) -> Response:
        status, body, headers = _problem(problem)
        return Response(body, status, headers, media_type="application/json")

    async def paid(*args: Any, **kwargs: Any) -> Any:
        payer = terms.contact(*args, **kwargs)
        try:
            hold = await client.hold(payer, terms.actions, expires_in_s=terms.expires_in_s)
        except CreditsRefused as refused:
            return answer(refused)
        except NotReachable as away:
            if terms.grace is None or not await asyncio.to_thread(terms.grace.take, payer, terms.actions):
                return answer(away)
            return await handler(*args, **kwargs)
        try:
            result = await handler(*args, **kwargs)
        except BaseException:
            await asyncio.shield(client.give_back(hold.id))
            raise
        if isinstance(result, Response) and result.status_code >= 400:
            await client.give_back(hold.id)
            return result
        try:
            await client.capture_or_give_back(hold.id)
        except (CreditsRefused, NotReachable) as problem:
            return answer(problem)
        return result

    return paid


def _for_flask(handler: Callable[..., Any], client: BlockingTallybook, terms: _Terms) -> Callable[..., Any]:
    from flask import Response, make_response  # noqa: PLC0415 - only programs that use it have it

    def answer(problem: CreditsRefused | NotReachable) -> Response:
        status, body, headers = _problem(problem)
        return Response(body, status, headers, mimetype="application/json")

    def paid(*args: Any, **kwargs: Any) -> Any:
        payer = terms.contact(*args, **kwargs)
        try:
            hold = client.hold(payer, terms.actions, expires_in_s=terms.expires_in_s)
        except CreditsRefused as refused:
            return answer(refused)
        except NotReachable as away:
            if terms.grace is None or not terms.grace.take(payer, terms.actions):
                return answer(away)
            return handler(*args, **kwargs)
        try:
            result = make_response(handler(*args, **kwargs))
        except BaseException:
            client.give_back(hold.id)
            raise
        if result.status_code >= 400:
            client.give_back(hold.id)
            return result
        try:
            client.capture_or_give_back(hold.id)
        except (CreditsRefused, NotReachable) as problem:
            return answer(problem)
        return result

    return paid


def _problem(problem: CreditsRefused | NotReachable) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers. Only what the payer can act on is theirs to see; the rest is our trouble."""
    if isinstance(problem, CreditsRefused) and problem.status == 402:
        return 402, json.dumps(problem.envelope), {}
    wait_s = problem.retry_after_s if isinstance(problem, NotReachable) else 30.0
    return 503, json.dumps(_NOT_REACHABLE), {"Retry-After": str(math.ceil(wait_s))}
