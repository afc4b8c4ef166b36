"""A portal prepared for the mirror, a database, and students and sessions that exist on both sides."""

import asyncio
import re
from dataclasses import dataclass, field
from itertools import count

import httpx
import psycopg
import pytest

from support.factories import CATALOG, TORONTO, Contact, make_mock_exam
from support.portal import Portal
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.outbox import Claim, claim
from tallybook.usecases.prepare_portal import prepare_portal
from tallybook.usecases.pull_contacts import pull_contacts

BOOKING, CONTACT, MOCK_EXAM = MirroredType.BOOKING, MirroredType.CONTACT, MirroredType.MOCK_EXAM
TOKEN = "pat-test"

_numbers = count(1)


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
        answer = await self._http.post(
            f"/crm/objects/2026-09/{object_type}",
            json={"properties": properties},
            headers={"authorization": "Bearer pat-another-app"},
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

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

    async def calls(self):
        """How often each kind of call has been made."""
        return (await self.portal.stats())["calls"]

    async def student(self, *, credits=None, **given):  # noqa: A002 - the word of the catalog.
        """A student on both sides, as an import would leave it: met, with nothing to push."""
        n = next(_numbers)
        email = given.pop("email", f"pushed{n}@example.com")
        student_id = given.pop("student_id", str(1_800_000 + n))
        shown = {name: str(number) for name, number in (credits or {}).items()}
        shown |= {"firstname": "Ada", "lastname": "Lovelace"} | given
        hubspot_id = await self.create("contacts", email=email, student_id=student_id, **shown)
        await pull_contacts(self.mirror, [hubspot_id], kind=CallKind.PULL)
        contact_id = await self.value("select id from tallybook.contacts where hubspot_id = %s", hubspot_id)
        return Contact(contact_id, hubspot_id, student_id, email)

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
