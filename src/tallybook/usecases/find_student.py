"""Students PostgreSQL does not know yet: asked from HubSpot, many in one call, stored before the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from tallybook.domain.catalog import Catalog
from tallybook.domain.contacts import Pair
from tallybook.domain.errors import CrmBusy, CrmUnavailable, SetupError, StudentNotFound, TallybookError
from tallybook.domain.mirror import MirroredType, Outcome
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import BATCH_SIZE, HISTORY_BATCH_SIZE, HubSpotClient
from tallybook.hubspot.fields import (
    RemoteContact,
    contact_properties,
    history_properties,
    parse_contact,
)
from tallybook.hubspot.histories import SAME_TIME
from tallybook.postgres.pool import Database
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.ask_to_read import ask_to_read
from tallybook.usecases.guard_mirror import PortalGuard
from tallybook.usecases.learn_stamp_times import own_within

_log = structlog.get_logger(__name__)

# A call leaves when no further miss has come for a moment: those that arrive together share it, also when a
# busy server reads them slowly. It never waits so long that a person would notice.
_QUIET_S = 0.005
_GATHER_AT_MOST_S = 0.05
# While these are under way, the next misses collect into fuller batches.
_CALLS_IN_FLIGHT = 4
_SPACING_S = 0.1
# A miss is answered within two seconds, if only with "try again"; the call goes on and stores what it brings.
_ANSWER_WITHIN_S = 1.9
_CALL_DEADLINE_S = 10.0
_UNKNOWN_FOR_S = 15.0
_MOST_UNKNOWN = 10_000
_UNREAD = frozenset((Outcome.NEED_HISTORY, Outcome.AGAIN))


@dataclass(frozen=True, slots=True)
class Found:
    """A student as HubSpot shows it. `stored` is false when PostgreSQL could not keep it."""

    contact: RemoteContact
    stored: bool


class Students:
    """The look-up of students that are not stored.

    Concurrent misses are gathered for a few milliseconds and asked in one call for up to a hundred; the same
    contact is asked once. Pairs HubSpot does not know are remembered briefly, at most ten thousand of them.
    """

    def __init__(
        self,
        client: HubSpotClient,
        db: Database,
        catalog: Catalog,
        portal: PortalGuard,
    ) -> None:
        def gatherer(kind: CallKind, id_property: str | None) -> _Gatherer:
            return _Gatherer(
                client,
                db,
                catalog,
                portal,
                kind=kind,
                id_property=id_property,
                on_store_failure=self._store_failed,
            )

        self._count_store_failure: Callable[[], None] = lambda: None

        self._by_email = {
            True: gatherer(CallKind.MISS, "email"),
            False: gatherer(CallKind.UNSIGNED_MISS, "email"),
        }
        self._by_id = {True: gatherer(CallKind.MISS, None), False: gatherer(CallKind.UNSIGNED_MISS, None)}
        self.catalog = catalog
        self._unknown: dict[Pair, float] = {}

    def watch_store_failures(self, count: Callable[[], None]) -> None:
        """`count` is called whenever PostgreSQL could not keep what HubSpot answered."""
        self._count_store_failure = count

    def _store_failed(self) -> None:
        self._count_store_failure()

    async def fetch(self, *, pair: Pair | None, hubspot_id: str | None, signed: bool) -> Found:
        """The student, by HubSpot id when that is known, else by the pair.

        `signed` callers may use the whole call budget, others a part of it. Raises StudentNotFound, CrmBusy
        (within two seconds, also when HubSpot is down) and CrmUnavailable (its token or scope is wrong, or it
        opens a portal that is not this database's).
        """
        if hubspot_id is not None:
            found = await self._by_id[signed].read(hubspot_id)
            if found is None:
                raise StudentNotFound
            return found
        if pair is None:
            raise StudentNotFound
        now = time.monotonic()
        if self._unknown.get(pair, 0.0) > now:
            raise StudentNotFound
        found = await self._by_email[signed].read(pair.email)
        if found is None or found.contact.student_id != pair.student_id or found.contact.archived:
            self._remember_unknown(pair, now)
            raise StudentNotFound
        return found

    def _remember_unknown(self, pair: Pair, now: float) -> None:
        self._unknown.pop(pair, None)
        if len(self._unknown) >= _MOST_UNKNOWN:
            # Oldest first: insertion order is age.
            del self._unknown[next(iter(self._unknown))]
        self._unknown[pair] = now + _UNKNOWN_FOR_S


class _Gatherer:
    """Collects ids of one kind into batch reads."""

    def __init__(
        self,
        client: HubSpotClient,
        db: Database,
        catalog: Catalog,
        portal: PortalGuard,
        *,
        kind: CallKind,
        id_property: str | None,
        on_store_failure: Callable[[], None],
    ) -> None:
        self._client = client
        self._db = db
        self._catalog = catalog
        self._portal = portal
        self._kind = kind
        self._id_property = id_property
        self._on_store_failure = on_store_failure
        self._asked: dict[str, asyncio.Future[Found | None]] = {}
        self._waiting: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._send_by = self._sent_at = 0.0
        self._calls: set[asyncio.Task[None]] = set()

    async def read(self, key: str) -> Found | None:
        """The contact with this key, or None. Raises CrmBusy, CrmUnavailable."""
        loop = asyncio.get_running_loop()
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = loop.create_future()
            # Nobody may be left to hear of a failure; it is logged where it happens.
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._waiting.append(key)
            if len(self._waiting) >= BATCH_SIZE:
                self._send()
            else:
                self._wait_for_more(loop)
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                return await asyncio.shield(asked)
        except TimeoutError as error:
            raise CrmBusy from error

    def _wait_for_more(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        if self._timer is None:
            self._send_by = now + _GATHER_AT_MOST_S
        else:
            self._timer.cancel()
        at = min(now + _QUIET_S, self._send_by)
        if self._calls:
            at = max(at, self._sent_at + _SPACING_S)
        self._timer = loop.call_at(at, self._send)

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and len(self._calls) < _CALLS_IN_FLIGHT:
            batch, self._waiting = self._waiting[:BATCH_SIZE], self._waiting[BATCH_SIZE:]
            call = asyncio.create_task(self._call(batch))
            self._calls.add(call)
            self._sent_at = asyncio.get_running_loop().time()
            call.add_done_callback(self._called)

    def _called(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if self._timer is None:
            self._send()

    async def _call(self, batch: Sequence[str]) -> None:
        try:
            found = await self._read(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, every waiting request must hear of it
            problem = {"problem": error.message} if isinstance(error, SetupError) else {}
            _log.warning("miss_failed", contacts=len(batch), error=type(error).__name__, **problem)
            for key in batch:
                self._asked.pop(key).set_exception(_for_students(error))
        else:
            for key in batch:
                self._asked.pop(key).set_result(found.get(key))

    async def _read(self, batch: Sequence[str]) -> dict[str, Found]:
        self._portal.refuse()
        # Whose portal it is is nearly always known. Else it is asked beside the look-up: nobody waits longer.
        students, guarded = await asyncio.gather(
            self._ask(batch, id_property=self._id_property), self._portal_problem()
        )
        kept = await self._store(students) if guarded is None else self._not_stored(students, guarded)
        return {
            key: Found(contact, stored=contact.hubspot_id in kept)
            for contact in students
            if (key := contact.hubspot_id if self._id_property is None else contact.email) is not None
        }

    async def _portal_problem(self) -> Exception | None:
        """Why our database cannot tell whose portal it is. Raises CrmBusy, CrmUnavailable, SetupError."""
        try:
            await self._portal.demand()
        except (CrmBusy, CrmUnavailable, SetupError):
            raise
        except Exception as error:  # noqa: BLE001 - as when storing: HubSpot's answer stands, not stored
            return error
        return None

    async def _ask(
        self, keys: Sequence[str], *, id_property: str | None, with_history: bool = False
    ) -> list[RemoteContact]:
        records = await self._client.batch_read(
            "contacts",
            keys,
            id_property=id_property,
            properties=contact_properties(self._catalog),
            with_history=history_properties(self._catalog) if with_history else (),
            kind=self._kind,
            deadline_s=_CALL_DEADLINE_S,
        )
        within = await own_within(self._db) if with_history else SAME_TIME
        contacts = [parse_contact(record, self._catalog, own_within=within) for record in records]
        return [contact for contact in contacts if contact.student_id is not None]

    async def _store(self, contacts: Sequence[RemoteContact]) -> frozenset[str]:
        """The ids of those that are stored as HubSpot shows them, as far as it can be told."""
        if not contacts:
            return frozenset()
        try:
            absorbed = await absorb_contacts(self._db, contacts, first_reason="crm_link")
            unread = [key for key, each in absorbed.items() if each.outcome is Outcome.NEED_HISTORY]
            for start in range(0, len(unread), HISTORY_BATCH_SIZE):
                # Own writes are unread: their histories tell, and people wait for the answer.
                with_histories = await self._ask(
                    unread[start : start + HISTORY_BATCH_SIZE], id_property=None, with_history=True
                )
                absorbed |= await absorb_contacts(self._db, with_histories, first_reason="crm_link")
            late = [key for key, each in absorbed.items() if each.outcome in _UNREAD]
            if late:
                await ask_to_read(self._db, MirroredType.CONTACT, late)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with our database, HubSpot's answer stands
            return self._not_stored(contacts, error)
        return frozenset(
            key
            for key, each in absorbed.items()
            if each.contact_id is not None and each.outcome not in _UNREAD
        )

    def _not_stored(self, contacts: Sequence[RemoteContact], error: Exception) -> frozenset[str]:
        if contacts:
            self._on_store_failure()
            _log.error("miss_not_stored", contacts=len(contacts), exc_info=error)
        return frozenset()


def _for_students(error: Exception) -> TallybookError:
    """A student can do the same about any passing trouble of HubSpot: wait a moment."""
    if isinstance(error, SetupError):
        return CrmUnavailable(retry_after_s=60)
    details: dict[str, Any] = {"retry_after_s": error.retry_after_s} if isinstance(error, CrmBusy) else {}
    return CrmBusy(**details)
