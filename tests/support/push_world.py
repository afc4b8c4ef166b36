"""A portal prepared for the mirror, a database, and students and sessions that exist on both sides."""

import asyncio
import itertools
import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx
import psycopg
import pytest

from support.factories import CATALOG, TORONTO, Contact, make_mock_exam
from support.portal import Portal
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind, UnlimitedBudget
from tallybook.hubspot.client import HubSpotClient
from tallybook.hubspot.connection import HubSpotConnection
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.outbox import Claim, claim
from tallybook.usecases.prepare_portal import prepare_portal
from tallybook.usecases.pull_contacts import pull_contacts

BOOKING, CONTACT, MOCK_EXAM = MirroredType.BOOKING, MirroredType.CONTACT, MirroredType.MOCK_EXAM
TOKEN = "pat-test"
_GROUPS = {
    BOOKING: "bookings_information",
    CONTACT: "contactinformation",
    MOCK_EXAM: "mock_exams_information",
}

_numbers = itertools.count(1)


@dataclass
class World:
    """Both sides, and what a test looks at or does there."""

    mirror: Mirror
    portal: Portal
    uri: str
    _http: httpx.AsyncClient
    created: list[str] = field(default_factory=list)

    @property
    def db(self):
        return self.mirror.db

    async def rows(self, statement, *values):
        """All rows of one statement, as the owner."""
        async with await psycopg.AsyncConnection.connect(self.uri, autocommit=True) as connection:
            cursor = await connection.execute(statement, values)
            return await cursor.fetchall() if cursor.description else []

    async def value(self, statement, *values):
        """The first value of the first row; None without rows."""
        found = await self.rows(statement, *values)
        return found[0][0] if found else None

    async def outbox(self, lane=None):
        """What waits: {id: (attempts, last_error, dead)}."""
        found = await self.rows(
            "select object_id, attempts, last_error, dead_at is not null from tallybook.outbox"
            " where %s::text is null or object_type = %s",
            lane,
            lane,
        )
        return {row[0]: row[1:] for row in found}

    async def until(self, holds, *, within_s=30):
        """Waits until `holds()` is true."""
        async with asyncio.timeout(within_s):
            while not await holds():  # noqa: ASYNC110 - what is waited for happens in another process.
                await asyncio.sleep(0.02)

    async def until_pushed(self, *, within_s=30):
        """Waits until nothing waits any more."""

        async def is_empty():
            return await self.value("select count(*) from tallybook.outbox where dead_at is null") == 0

        await self.until(is_empty, within_s=within_s)

    async def due(self):
        """Everything that waits for its time is due now."""
        await self.rows(
            "update tallybook.outbox set next_attempt_at = clock_timestamp() - interval '1 hour'"
            " where lease_token is null and dead_at is null"
        )

    async def resume(self, lane):
        """A paused lane probes now."""
        await self.rows(
            "update tallybook.sync_lanes set resume_at = clock_timestamp()"
            " where lane = %s and paused_at is not null",
            lane,
        )

    async def claim(self, lane):
        """A claim that nobody carries out."""
        found = await claim(self.db, lane, linger_s=0)
        assert isinstance(found, Claim)
        return found

    async def lose_leases(self):
        """A minute passes: every lease is over."""
        await self.rows(
            "update tallybook.outbox set leased_until = clock_timestamp() - interval '1 second'"
            " where lease_token is not null"
        )

    async def forget_outbox(self):
        """Nothing waits."""
        await self.rows("delete from tallybook.outbox")

    async def create(self, object_type, **properties):
        """A record of the portal, made as another app; its id."""
        return (await self.create_all(object_type, [properties]))[0]

    async def create_all(self, object_type, records):
        """Up to a hundred records; their ids."""
        answer = await self._http.post(
            f"/crm/objects/2026-09/{object_type}/batch/create",
            json={"inputs": [{"properties": each} for each in records]},
            headers={"authorization": "Bearer pat-another-app"},
        )
        assert answer.status_code == 201, answer.text
        return [each["id"] for each in answer.json()["results"]]

    async def record(self, lane, record_id):
        """A record with history and associations, as the back door shows it."""
        answer = await self._http.get(f"/_simulator/records/{self.mirror.crm_type(lane)}/{record_id}")
        answer.raise_for_status()
        return answer.json()

    async def properties(self, lane, record_id):
        """A record's properties."""
        return (await self.record(lane, record_id))["properties"]

    async def records(self, lane):
        """All records of a type: {tallybook_id: properties}; those without are under their record id."""
        found, after = {}, None
        while True:
            answer = await self._http.get(
                f"/crm/objects/2026-09/{self.mirror.crm_type(lane)}",
                params={"limit": 100, "properties": "tallybook_id,booking_id,total_bookings"}
                | ({"after": after} if after else {}),
                headers={"authorization": "Bearer pat-another-app"},
            )
            answer.raise_for_status()
            body = answer.json()
            for each in body["results"]:
                key = each["properties"].get("tallybook_id") or each["id"]
                assert key not in found, f"{key} exists twice"
                found[key] = each
            after = body.get("paging", {}).get("next", {}).get("after")
            if after is None:
                return found

    async def edit(self, lane, record_id, *, user="ada", **properties):
        """A person types something in HubSpot."""
        return await self.portal.post(
            "edits",
            object_type=self.mirror.crm_type(lane),
            id=record_id,
            properties=properties,
            user=user,
        )

    async def fault(self, path, **fault):
        """The next matching call fails so."""
        await self.portal.post("faults", path=path, **fault)

    def batch(self, lane, verb):
        """The path of a batch call, as a fault names it."""
        return f"/{re.escape(self.mirror.crm_type(lane))}/batch/{verb}$"

    @asynccontextmanager
    async def without_trace_ids(self):
        """The mirror of a portal that has not heard of trace ids: one bad record refuses its whole batch."""

        async def strip(request):
            if request.method != "POST":
                return
            body = json.loads(request.content)
            for each in body.get("inputs", []):
                each.pop("objectWriteTraceId", None)
            stripped = self._http.build_request("POST", request.url, json=body)
            request.stream = stripped.stream
            request.headers["content-length"] = stripped.headers["content-length"]

        async with self.portal.client(token=TOKEN) as client:
            client._http.event_hooks["request"] = [strip]
            yield replace(self.mirror, client=client)

    @asynccontextmanager
    async def elsewhere(self):
        """The mirror while nobody listens where HubSpot should be."""
        connection = HubSpotConnection("http://127.0.0.1:9", TOKEN)
        async with HubSpotClient(connection, budget=UnlimitedBudget()) as client:
            yield replace(self.mirror, client=client)

    def over(self, db):
        """The same mirror over other connections: another worker."""
        return replace(self.mirror, db=db)

    async def pull_all(self, contacts):
        """Reads these contacts as a poll would."""
        await pull_contacts(self.mirror, [each.hubspot_id for each in contacts], kind=CallKind.PULL)

    async def portal_property(self, lane, name, *, exists):
        """Deletes a property of the portal or makes it again, as its admin."""
        path = f"/crm/properties/2026-09/{self.mirror.crm_type(lane)}"
        headers = {"authorization": "Bearer pat-the-admin"}
        if exists:
            body = {
                "name": name,
                "label": name,
                "type": "string",
                "fieldType": "text",
                "groupName": _GROUPS[lane],
            }
            answer = await self._http.post(path, json=body, headers=headers)
        else:
            answer = await self._http.delete(f"{path}/{name}", headers=headers)
        assert answer.is_success, answer.text

    async def declare_read_only(self, lane, name):
        """From now on the portal says that nobody can write this property."""
        path = f"/crm/properties/2026-09/{self.mirror.crm_type(lane)}"
        answer = await self._http.get(path, headers={"authorization": "Bearer pat-the-admin"})
        body = answer.json()
        for each in body["results"]:
            if each["name"] == name:
                each["modificationMetadata"]["readOnlyValue"] = True
        await self.fault(f"{path}$", method="GET", status=200, times=100, body=body)

    async def calls(self):
        """How often each kind of call has been made."""
        return (await self.portal.stats())["calls"]

    async def student(self, *, credits=None):  # noqa: A002 - the word of the catalog.
        """A student on both sides, as an import would leave it: met, with nothing to push."""
        return (await self.students(1, credits=credits))[0]

    async def students(self, number, *, credits=None):  # noqa: A002
        """So many students with the same credits."""
        shown = {name: str(amount) for name, amount in (credits or {}).items()}
        people = [
            {"email": f"pushed{n}@example.com", "student_id": str(1_800_000 + n)}
            for n in itertools.islice(_numbers, number)
        ]
        found = []
        for start in range(0, number, 100):
            part = people[start : start + 100]
            ids = await self.create_all(
                "contacts", [{"firstname": "Ada", "lastname": "Lovelace", **shown, **each} for each in part]
            )
            await pull_contacts(self.mirror, ids, kind=CallKind.PULL)
            found += list(zip(ids, part, strict=True))
        ours = dict(
            await self.rows(
                "select hubspot_id, id from tallybook.contacts where hubspot_id = any(%s)",
                [id_ for id_, _ in found],
            )
        )
        return [Contact(ours[id_], id_, each["student_id"], each["email"]) for id_, each in found]

    async def exam(self, *, mirrored=True, **given):
        """A session on both sides; not `mirrored`: only here, and HubSpot has not heard of it."""
        exam = await make_mock_exam(self.db, **given)
        if not mirrored:
            return exam
        hubspot_id = await self.create(self.mirror.crm_type(MOCK_EXAM), mock_type=exam.mock_type)
        await self.rows(
            "update tallybook.mock_exams e set hubspot_id = %s,"
            " crm_base = tallybook.mock_exam_mirror(e) || jsonb_build_object('tallybook_id', e.id)"
            " where e.id = %s",
            hubspot_id,
            exam.id,
        )
        return exam

    async def hubspot_id(self, table, object_id):
        """The id of HubSpot's record; None where there is none yet."""
        assert table in {"contacts", "mock_exams", "bookings"}
        return await self.value(f"select hubspot_id from tallybook.{table} where id = %s", object_id)


@pytest.fixture
async def world(portal, db, database_uri):
    """A portal prepared for the mirror, and a database whose students and sessions can be on both sides."""
    async with (
        portal.client(token=TOKEN) as client,
        httpx.AsyncClient(base_url=portal.url, trust_env=False) as http,
    ):
        await prepare_portal(client, CATALOG)
        yield World(Mirror(db, client, CATALOG, TORONTO), portal, database_uri, http)
        await portal.door.delete("/_simulator/faults")
