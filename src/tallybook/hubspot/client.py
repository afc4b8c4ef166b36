"""The calls to HubSpot: each takes a slot of the budget and keeps to the caller's deadline."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from tallybook.domain.call_limits import CallSlot
from tallybook.domain.errors import CrmBusy, CrmUnavailable, TallybookError, Unavailable
from tallybook.hubspot.budget import CallBudget, CallKind, CallMade, CallObserver
from tallybook.hubspot.connection import HubSpotConnection, objects_path
from tallybook.hubspot.definitions import DefinitionCalls
from tallybook.hubspot.errors import error_of, is_passing
from tallybook.hubspot.records import Record, RecordPage, SearchPage
from tallybook.hubspot.write_results import Fault, Refusal, Unknown
from tallybook.hubspot.writes import Answer, WriteCalls

T = TypeVar("T")

BATCH_SIZE = 100
HISTORY_BATCH_SIZE = 50
PAGE_SIZE = 100
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_SHORTEST_CALL_S = 0.05
_DAILY_LIMIT = "x-hubspot-ratelimit-daily"
_DAILY_REMAINING = "x-hubspot-ratelimit-daily-remaining"


class _Failure(NamedTuple):
    """What came instead of an answer, and whether and when to try again."""

    error: TallybookError
    is_passing: bool
    wait_s: float


class HubSpotClient(DefinitionCalls, WriteCalls):
    """Reads and writes HubSpot. Every method names the `kind` of its calls and how long the caller can wait.

    Reads raise CrmBusy (its limits, or no slot in time), CrmUnavailable (timeouts, failures) and SetupError
    (token, scope, address). They are repeated after passing failures as long as the deadline allows; each
    attempt takes a new slot. Writes are sent once and say what became of them.
    """

    def __init__(
        self, connection: HubSpotConnection, *, budget: CallBudget, observer: CallObserver | None = None
    ) -> None:
        self.connection = connection
        self._budget = budget
        self._observer = observer
        self.calls: Counter[CallKind] = Counter()
        """Calls sent so far, by kind."""
        host = urlsplit(connection.base_url).hostname or ""
        self._http = httpx.AsyncClient(
            base_url=connection.base_url,
            headers={"Authorization": f"Bearer {connection.token}", "Accept": "application/json"},
            timeout=httpx.Timeout(connection.answer_timeout_s, connect=connection.connect_timeout_s),
            limits=httpx.Limits(
                max_connections=connection.max_connections,
                max_keepalive_connections=connection.max_connections,
            ),
            # Loading the certificates takes longer than a whole call to a simulator next door.
            verify=connection.base_url.startswith("https:"),
            trust_env=host not in ("127.0.0.1", "::1", "localhost"),
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

    async def batch_read(
        self,
        object_type: str,
        ids: Iterable[str],
        *,
        properties: Sequence[str],
        kind: CallKind,
        deadline_s: float,
        id_property: str | None = None,
        with_history: Sequence[str] = (),
        archived: bool = False,
    ) -> tuple[Record, ...]:
        """The records that exist among at most 100 ids (50 with history), in one call, without those missing.

        `id_property` reads by a unique property instead of the record id, such as `email`: it has no index
        lag. `archived` reads those in the recycle bin, and no others.
        """
        wanted = list(dict.fromkeys(ids))
        if len(wanted) > (HISTORY_BATCH_SIZE if with_history else BATCH_SIZE):
            raise ValueError(f"too many ids for one call: {len(wanted)}")
        if not wanted:
            return ()
        body: dict[str, Any] = {
            "inputs": [{"id": record_id} for record_id in wanted],
            "properties": list(properties),
        }
        if id_property is not None:
            body["idProperty"] = id_property
        if with_history:
            body["propertiesWithHistory"] = list(with_history)
        page = await self._read(
            "POST",
            objects_path(object_type, "batch/read"),
            RecordPage,
            operation=f"read {object_type}",
            kind=kind,
            deadline_s=deadline_s,
            query={"archived": "true"} if archived else None,
            body=body,
        )
        return page.results

    async def list_page(
        self,
        object_type: str,
        *,
        properties: Sequence[str],
        kind: CallKind,
        deadline_s: float,
        after: str | None = None,
        limit: int = PAGE_SIZE,
        archived: bool = False,
        associations: Sequence[str] = (),
    ) -> RecordPage:
        """One page of all records of a type in the order of their ids, without index lag."""
        query: dict[str, str] = {"limit": str(limit), "archived": "true" if archived else "false"}
        if properties:
            query["properties"] = ",".join(properties)
        if associations:
            query["associations"] = ",".join(associations)
        if after is not None:
            query["after"] = after
        return await self._read(
            "GET",
            objects_path(object_type),
            RecordPage,
            operation=f"list {object_type}",
            kind=kind,
            deadline_s=deadline_s,
            query=query,
        )

    async def search(
        self,
        object_type: str,
        *,
        kind: CallKind,
        deadline_s: float,
        filters: Sequence[dict[str, Any]] = (),
        sort_by: str | None = None,
        descending: bool = False,
        limit: int = 200,
        after: str | None = None,
    ) -> SearchPage:
        """One page of a search, all filters holding at once: ids to read afterwards, never values to store.

        The index lags behind the records, and a query has at most 10,000 results.
        """
        body: dict[str, Any] = {"limit": limit, "properties": ["hs_object_id"]}
        if filters:
            body["filterGroups"] = [{"filters": list(filters)}]
        if sort_by is not None:
            body["sorts"] = [
                {"propertyName": sort_by, "direction": "DESCENDING" if descending else "ASCENDING"}
            ]
        if after is not None:
            body["after"] = after
        operation = f"search {object_type}"
        response = await self._response(
            "POST",
            objects_path(object_type, "search"),
            operation=operation,
            kind=kind,
            deadline_s=deadline_s,
            body=body,
            search=True,
        )
        page = _decoded(response.content, SearchPage, operation=operation)
        return msgspec.structs.replace(page, answered_at=_date(response))

    async def read_batch(
        self, path: str, answer: type[T], *, operation: str, kind: CallKind, deadline_s: float, body: Any
    ) -> T:
        """The answer of a batch address that only reads, and may so be called again."""
        return await self._read(
            "POST", path, answer, operation=operation, kind=kind, deadline_s=deadline_s, body=body
        )

    async def _read(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        operation: str,
        kind: CallKind,
        deadline_s: float,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> T:
        """The decoded answer of a call that may be repeated, within `deadline_s` in all."""
        response = await self._response(
            method, path, operation=operation, kind=kind, deadline_s=deadline_s, query=query, body=body
        )
        return _decoded(response.content, answer, operation=operation)

    async def _response(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        kind: CallKind,
        deadline_s: float,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        search: bool = False,
    ) -> httpx.Response:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + deadline_s
        request = self._http.build_request(method, path, params=query, json=body)
        pause_s = _FIRST_PAUSE_S
        while True:
            got = await self._attempt(request, operation=operation, kind=kind, search=search, ends_at=ends_at)
            if isinstance(got, httpx.Response):
                return got
            wait_s = max(pause_s, got.wait_s)
            if not got.is_passing or loop.time() + wait_s + _SHORTEST_CALL_S >= ends_at:
                raise got.error
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _attempt(
        self, request: httpx.Request, *, operation: str, kind: CallKind, search: bool, ends_at: float
    ) -> httpx.Response | _Failure:
        """One call in one slot; only the budget's own CrmBusy is raised."""
        wait_s = max(0.0, ends_at - asyncio.get_running_loop().time())
        got = await self._exchange(
            request, operation=operation, kind=kind, search=search, wait_s=wait_s, ends_at=ends_at
        )
        if isinstance(got, httpx.Response):
            return got if got.is_success else self._refused(got, operation)
        failure = CrmUnavailable(operation=operation, problem=type(got).__name__)
        failure.__cause__ = got
        return _Failure(failure, is_passing=True, wait_s=0.0)

    async def _exchange(
        self,
        request: httpx.Request,
        *,
        operation: str,
        kind: CallKind,
        search: bool,
        wait_s: float,
        ends_at: float | None = None,
    ) -> httpx.Response | TimeoutError | httpx.TransportError:
        """The answer of one call in one slot, or why none came. Raises CrmBusy when no slot is free."""
        loop = asyncio.get_running_loop()
        async with self._budget.slot(kind, search=search, wait_s=wait_s) as slot:
            started_at = loop.time()
            latest = started_at + self.connection.answer_timeout_s
            response: httpx.Response | None = None
            try:
                # httpx limits each silence, not the whole: a slow trickle would outlive the deadline.
                async with asyncio.timeout_at(latest if ends_at is None else min(ends_at, latest)):
                    response = await self._http.send(request)
                _note_day(slot, response)
            except (TimeoutError, httpx.TransportError) as error:
                return error
            finally:
                self._observe(response, operation, kind, search=search, seconds=loop.time() - started_at)
        return response

    async def send_once(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        *,
        operation: str,
        kind: CallKind,
        wait_s: float,
    ) -> Answer | Refusal | Unknown:
        """One call in one slot, never repeated: the answer, or why there is none."""
        request = self._http.build_request(method, path, json=body)
        try:
            got = await self._exchange(request, operation=operation, kind=kind, search=False, wait_s=wait_s)
        except CrmBusy as busy:
            return Refusal(Fault.BUSY, "no call is free at present", float(busy.retry_after_s))
        if isinstance(got, httpx.Response):
            return Answer(got.status_code, got.content, got.headers)
        words = f"{operation}: {type(got).__name__}"
        if isinstance(got, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            return Refusal(Fault.UNREACHABLE, words)
        return Unknown(words)

    def _refused(self, response: httpx.Response, operation: str) -> _Failure:
        status = response.status_code
        error = error_of(
            status,
            body=response.content,
            headers=response.headers,
            operation=operation,
            token=self.connection.token,
        )
        # Limits and locks say how long to wait; after a plain failure a short pause is enough.
        wait_s = error.retry_after_s if isinstance(error, Unavailable) and status in (423, 429, 477) else 0
        return _Failure(error, is_passing=is_passing(status), wait_s=float(wait_s))

    def _observe(
        self, response: httpx.Response | None, operation: str, kind: CallKind, *, search: bool, seconds: float
    ) -> None:
        self.calls[kind] += 1
        if self._observer is None:
            return
        self._observer(
            CallMade(
                kind=kind,
                operation=operation,
                search=search,
                status=response.status_code if response is not None else None,
                seconds=seconds,
                daily_remaining=None if response is None else _number(response, _DAILY_REMAINING),
            )
        )


def _note_day(slot: CallSlot, response: httpx.Response) -> None:
    slot.daily_limit = _number(response, _DAILY_LIMIT)
    slot.daily_remaining = _number(response, _DAILY_REMAINING)
    if response.status_code == 429 and b'"DAILY"' in response.content:
        slot.daily_remaining = 0


def _number(response: httpx.Response, header: str) -> int | None:
    text = response.headers.get(header, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _date(response: httpx.Response) -> datetime | None:
    """When HubSpot answered, by its own clock."""
    try:
        return parsedate_to_datetime(response.headers.get("date", "")).astimezone(UTC)
    except ValueError:
        return None


def _decoded(content: bytes, answer: type[T], *, operation: str) -> T:
    try:
        return msgspec.json.decode(content, type=answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CrmUnavailable(
            operation=operation, problem=f"HubSpot's answer is not readable: {error}"
        ) from error
