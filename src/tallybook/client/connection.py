"""The client itself: each call is repeated under one idempotency key until it is answered or time is up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import httpx

from tallybook.client.errors import CreditsRefused, InsufficientCredits, NotReachable
from tallybook.client.models import (
    Action,
    Charge,
    Check,
    ClosedHold,
    Contact,
    Hold,
    Refund,
    charge_of,
    check_of,
    closed_of,
    contact_of,
    hold_of,
    refund_of,
)

Actions = str | Action | Sequence[str | Action]
"""One action by name, one with a quantity, or several."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_LATER = frozenset((429, 500, 502, 503, 504))
# Answers that say for sure that nothing was done; a database that went away may have committed before.
_NOTHING_DONE = frozenset(("RATE_LIMITED", "LOCK_TIMEOUT", "CRM_BUSY", "CRM_UNAVAILABLE"))


class Tallybook:
    """Metered actions of one Tallybook, for one key with the scope `credits`.

    `timeout_s` is how long one attempt may take, `deadline_s` a whole call with its repeats. Every change
    carries an idempotency key of its own, the same in each repeat, so that it happens once. Methods raise
    InsufficientCredits, CreditsRefused and NotReachable. `contact` is a UUID, a HubSpot id,
    `student:1599005` or `email:a@b.c`.
    """

    def __init__(self, base_url: str, key: str, *, timeout_s: float = 5.0, deadline_s: float = 12.0) -> None:
        self._deadline_s = deadline_s
        self._http = httpx.AsyncClient(
            base_url=base_url.rstrip("/"),
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            timeout=timeout_s,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def costs(self) -> Mapping[str, int]:
        """What each action costs, for price tags."""
        data = await self._call("GET", "/api/credits/costs")
        return {each["action"]: each["credits"] for each in data["actions"]}

    async def find_or_create(
        self,
        email: str,
        *,
        firstname: str | None = None,
        lastname: str | None = None,
        external_id: str | None = None,
    ) -> Contact:
        """The person with this address; a new one gets the welcome credits, once."""
        names = {"firstname": firstname, "lastname": lastname, "external_id": external_id}
        given = {name: value for name, value in names.items() if value is not None}
        return contact_of(await self._call("POST", "/api/contacts", {"email": email, **given}))

    async def balances(self, contact: str) -> Mapping[str, int]:
        """What the contact can spend, by credit type."""
        data = await self._call("GET", f"/api/contacts/{quote(contact, safe='')}/credits")
        return dict(data["balances"])

    async def entries(
        self, contact: str, *, page: int = 1, per_page: int = 20, action: str | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """A page of the contact's ledger, newest first."""
        query = {
            "page": str(page),
            "per_page": str(per_page),
            **({"action_filter": action} if action else {}),
        }
        path = f"/api/contacts/{quote(contact, safe='')}/entries"
        return list((await self._call("GET", path, query=query))["data"])

    async def check(self, contact: str, actions: Actions) -> Check:
        """Whether the contact could pay now."""
        return check_of(await self._call("POST", "/api/credits/check", _payment(contact, actions)))

    async def charge(
        self,
        contact: str,
        actions: Actions,
        *,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
        dry_run: bool = False,
    ) -> Charge:
        """Takes the credits. `key` makes the charge happen once also across restarts of the caller (24 h)."""
        body = _payment(contact, actions, metadata=metadata, dry_run=dry_run)
        return charge_of(await self._change("/api/credits/charge", body, key))

    async def hold(
        self,
        contact: str,
        actions: Actions,
        *,
        expires_in_s: int = 900,
        metadata: Mapping[str, Any] | None = None,
        key: str | None = None,
        dry_run: bool = False,
    ) -> Hold:
        """Sets the credits aside; what is neither captured nor released comes back at `expires_in_s`."""
        body = _payment(contact, actions, metadata=metadata, dry_run=dry_run)
        return hold_of(await self._change("/api/credits/holds", body | {"expires_in_s": expires_in_s}, key))

    async def capture(
        self,
        hold_id: str,
        *,
        credits: int | None = None,  # noqa: A002 - the word of the ledger
        key: str | None = None,
    ) -> ClosedHold:
        """Takes what was held, or so many credits of it; the rest is given back."""
        body = {} if credits is None else {"credits": credits}
        return closed_of(
            await self._change(f"/api/credits/holds/{quote(hold_id, safe='')}/capture", body, key)
        )

    async def release(self, hold_id: str, *, key: str | None = None) -> ClosedHold:
        """Gives back what was held."""
        return closed_of(await self._change(_hold_path(hold_id, "release"), {}, key))

    async def refund(self, entry_id: int, *, key: str | None = None) -> Refund:
        """Gives back what one of this program's charges or captures took."""
        return refund_of(await self._change("/api/credits/refund", {"entry_id": entry_id}, key))

    @asynccontextmanager
    async def paid(
        self,
        contact: str,
        actions: Actions,
        *,
        expires_in_s: int = 900,
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Hold]:
        """Holds before the block, captures after it, releases when it raises.

        Raises what `hold` raises before the block runs. When the capture is not answered the block's work
        must not be handed out: NotReachable is raised and whatever was taken is given back.
        """
        hold = await self.hold(contact, actions, expires_in_s=expires_in_s, metadata=metadata)
        try:
            yield hold
        except BaseException:
            await asyncio.shield(self.give_back(hold.id))
            raise
        await self.capture_or_give_back(hold.id)

    async def capture_or_give_back(self, hold_id: str) -> ClosedHold:
        """Captures; when that is not answered nothing stays taken. Raises NotReachable, CreditsRefused."""
        try:
            return await self.capture(hold_id)
        except NotReachable:
            await self.give_back(hold_id)
            raise

    async def give_back(self, hold_id: str) -> bool:
        """Makes sure, as well as this moment allows, that the hold takes nothing; whether that was confirmed.

        Releases it; where an unanswered capture took it already, refunds. When Tallybook stays away the hold
        expires by itself.
        """
        try:
            await self.release(hold_id)
        except CreditsRefused as refused:
            if refused.code != "HOLD_CLOSED" or refused.details.get("closed_as") != "captured":
                return refused.code == "HOLD_CLOSED"
            try:
                for entry_id in refused.details.get("entry_ids", ()):
                    await self.refund(entry_id)
            except (CreditsRefused, NotReachable):
                return False
        except NotReachable:
            return False
        return True

    async def _change(self, path: str, body: dict[str, Any], key: str | None) -> dict[str, Any]:
        return await self._call("POST", path, body, key=key or uuid4().hex)

    async def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        query: dict[str, str] | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        """The data of a success. Every call here may be repeated: it reads, or it carries a key."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._deadline_s
        headers = {"Idempotency-Key": key} if key and not (body or {}).get("dry_run") else {}
        pause_s, sent = _FIRST_PAUSE_S, False
        while True:
            try:
                async with asyncio.timeout_at(ends_at):
                    answer = await self._http.request(method, path, json=body, params=query, headers=headers)
            except httpx.ConnectError as error:
                problem, wait_s = f"cannot connect: {error}", 0.0
            except (httpx.TransportError, TimeoutError) as error:
                problem, wait_s, sent = type(error).__name__, 0.0, True
            else:
                envelope = _envelope(answer)
                if answer.is_success and isinstance(envelope.get("data"), dict):
                    return dict(envelope["data"])
                refused = CreditsRefused(status=answer.status_code, envelope=envelope)
                if answer.status_code not in _LATER and refused.code != "IDEMPOTENCY_IN_PROGRESS":
                    if answer.status_code == 402:
                        raise InsufficientCredits(status=402, envelope=envelope)
                    raise refused
                problem, wait_s = str(refused), _retry_after_s(answer)
                sent = sent or refused.code not in _NOTHING_DONE
            # Several programs that wait for the same thing should not come back at the same moment.
            wait_s = max(wait_s, pause_s * random.uniform(0.5, 1.0))  # noqa: S311
            if loop.time() + wait_s >= ends_at:
                raise NotReachable(
                    f"Tallybook did not decide in time ({problem}).",
                    outcome_unknown=sent and method != "GET",
                    retry_after_s=max(1.0, wait_s),
                )
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _payment(contact: str, actions: Actions, **more: Any) -> dict[str, Any]:
    several = [actions] if isinstance(actions, str | Action) else list(actions)
    named = [Action(each) if isinstance(each, str) else each for each in several]
    given = {name: value for name, value in more.items() if value}
    items = [{"action": each.name, "quantity": each.quantity} for each in named]
    return {"contact": contact, "actions": items, **given}


def _hold_path(hold_id: str, verb: str) -> str:
    return f"/api/credits/holds/{quote(hold_id, safe='')}/{verb}"


def _envelope(answer: httpx.Response) -> dict[str, Any]:
    try:
        envelope = answer.json()
    except ValueError:
        envelope = None
    # A proxy in between may answer with a page of its own.
    return envelope if isinstance(envelope, dict) else {}


def _retry_after_s(answer: httpx.Response) -> float:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0
