"""The walk in id ranges: each record once, whatever the ids look like, and no more calls than it is worth."""

import asyncio
import bisect
import json
import socket
from contextlib import aclosing, asynccontextmanager
from urllib.parse import parse_qs

import msgspec
import pytest
import uvicorn

from tallybook.domain.errors import CrmUnavailable, SetupError
from tallybook.hubspot.budget import CallKind, UnlimitedBudget
from tallybook.hubspot.client import HubSpotClient
from tallybook.hubspot.connection import HubSpotConnection
from tallybook.hubspot.walk import RangeLeft, walk

SHAPES = {
    "few": list(range(1, 40)),
    "exactly two pages": list(range(1, 201)),
    "even": list(range(10**10, 10**10 + 5000 * 37, 37)),
    "cluster, void, cluster": [*range(1, 1500), *range(10**11, 10**11 + 1500)],
    "one far away": [*range(50, 2050), 2 * 10**11],
    "growing gaps": [10**6 + n * n * n for n in range(3000)],
    "dense end": [*range(1, 2000, 20), *range(10**9, 10**9 + 3000)],
    "none": [],
}


class ListOfIds:
    """The list and search of a portal with these ids, as an ASGI app; the cursor as HubSpot may mean it."""

    def __init__(
        self, ids, *, cursor_is_inclusive=True, search_status=200, total=None, order=None, latency_s=0.002
    ):
        self.ids, self.inclusive, self.search_status = ids, cursor_is_inclusive, search_status
        self.total = len(ids) if total is None else total
        self.order = order or (lambda page: page)
        self.latency_s = latency_s
        self.calls = 0
        self.most_at_once = 0
        self._now = 0

    async def __call__(self, scope, _receive, send):
        self.calls += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(self.latency_s)
        self._now -= 1
        if scope["path"].endswith("/search"):
            status, body = self.search_status, {"total": self.total, "results": self.records(self.ids[-1:])}
        else:
            status, body = 200, self.page(parse_qs(scope["query_string"].decode()))
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    def page(self, query):
        after, limit = int(query.get("after", ["0"])[0]), int(query["limit"][0])
        at = (bisect.bisect_left if self.inclusive else bisect.bisect_right)(self.ids, after)
        found = self.ids[at : at + limit]
        body = {"results": self.records(self.order(found))}
        if at + limit < len(self.ids):
            next_after = self.ids[at + limit] if self.inclusive else found[-1]
            body["paging"] = {"next": {"after": str(next_after)}}
        return body

    def records(self, ids):
        return [{"id": str(one), "updatedAt": "2026-11-21T12:00:00Z", "properties": {}} for one in ids]


@asynccontextmanager
async def served(app):
    """A client of the app, over a real socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error", access_log=False))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            connection = HubSpotConnection(f"http://127.0.0.1:{port}", "t")
            async with HubSpotClient(connection, budget=UnlimitedBudget()) as client:
                yield client
        finally:
            server.should_exit = True
            await task


async def ids_of(client, *, stop_after=None, left=None, **options):
    """The ids given, and what is left, after at most `stop_after` pages."""
    seen, pages = [], 0
    options = {"properties": [], "kind": CallKind.IMPORT, "page_deadline_s": 10, **options}
    async with aclosing(walk(client, "contacts", left=left, **options)) as walking:
        async for page in walking:
            seen += [int(record.id) for record in page.records]
            left, pages = page.left, pages + 1
            if pages == stop_after:
                break
    return seen, left


@pytest.mark.parametrize("cursor_is_inclusive", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
async def test_every_record_is_given_once(shape, cursor_is_inclusive):
    """Sparse, clustered or even; cursor `from` or `after`; and few calls beyond the pages."""
    ids = SHAPES[shape]
    app = ListOfIds(ids, cursor_is_inclusive=cursor_is_inclusive)
    async with served(app) as client:
        seen, left = await ids_of(client)
    assert sorted(seen) == ids
    assert left == ()
    pages = -(-len(ids) // 100)
    print(f"{shape}: {app.calls} calls for {pages} pages")
    assert app.calls <= 1.3 * pages + 6


@pytest.mark.parametrize(("search_status", "total"), [(503, None), (200, 10_000), (200, 5), (200, 10**9)])
async def test_what_search_says_changes_the_speed_only(search_status, total):
    """Search away, capped, too low or far too high: the list decides what there is."""
    ids = SHAPES["even"]
    async with served(ListOfIds(ids, search_status=search_status, total=total)) as client:
        seen, _ = await ids_of(client, page_deadline_s=1)
    assert sorted(seen) == ids


async def test_ranges_are_read_at_once_and_not_more_than_allowed():
    """Sixteen by default, four when asked; one is the plain walk."""
    for asked in (1, 4, 16):
        app = ListOfIds(SHAPES["even"], latency_s=0.02)
        async with served(app) as client:
            await ids_of(client, parallel_ranges=asked)
        assert app.most_at_once <= asked
        assert app.most_at_once > asked // 2


@pytest.mark.parametrize("shape", ["even", "cluster, void, cluster", "growing gaps"])
async def test_a_walk_stopped_after_every_few_pages_goes_on_without_loss(shape):
    """What is left survives JSON; pages on the way when it stopped are read again, pages given are not."""
    ids, seen, left = SHAPES[shape], [], None
    async with served(ListOfIds(ids)) as client:
        while left != ():
            some, left = await ids_of(client, stop_after=4, left=left)
            seen += some
            left = msgspec.json.decode(msgspec.json.encode(left), type=tuple[RangeLeft, ...])
    assert sorted(seen) == ids


async def test_a_stopped_walk_goes_on_with_another_number_of_ranges():
    """Many ranges left can be walked one after the other."""
    ids = SHAPES["even"]
    async with served(ListOfIds(ids)) as client:
        first, left = await ids_of(client, stop_after=9)
        assert len(left) > 1
        rest, _ = await ids_of(client, left=left, parallel_ranges=1)
    assert sorted(first + rest) == ids


async def test_records_made_meanwhile_disturb_nobody():
    """They may be given or not; those that were there are given once."""
    app = ListOfIds(list(SHAPES["even"]))
    there, seen = set(app.ids), []
    async with served(app) as client:
        pages = walk(client, "contacts", properties=[], kind=CallKind.IMPORT)
        async with aclosing(pages):
            async for page in pages:
                seen += [int(record.id) for record in page.records]
                app.ids.append(app.ids[-1] + 3)
    assert len(seen) == len(set(seen))
    assert there <= set(seen)


async def test_a_list_that_is_not_in_order_is_refused_and_readable_in_one_range():
    """Ranges rely on the order; one range relies on the cursor only."""
    ids = SHAPES["exactly two pages"]
    async with served(ListOfIds(ids, order=lambda page: page[::-1])) as client:
        with pytest.raises(SetupError, match="not in the order"):
            await ids_of(client)
        seen, _ = await ids_of(client, parallel_ranges=1)
    assert sorted(seen) == ids


async def test_a_failure_ends_the_walk_and_what_is_left_is_read_later(portal, client):
    """HubSpot away for a while costs no record; the simulator's own list agrees."""
    await portal.post("populate", contacts=1247)
    seen, left = await ids_of(client, stop_after=1)
    await portal.post("faults", path="/contacts$", status=502, times=1000)
    with pytest.raises(CrmUnavailable):
        await ids_of(client, left=left, page_deadline_s=0.5)
    await portal.door.delete("/_simulator/faults")
    rest, left = await ids_of(client, left=left)
    assert len(seen + rest) == len(set(seen + rest)) == 1247
    assert left == ()
