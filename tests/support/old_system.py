"""The system before: its tables beside a portal, with people and bookings in either or both."""

from uuid import uuid4

from support.push_world import CONTACT
from support.remote_sessions import RemoteSide
from tallybook.jobs.push_changes import push_until
from tallybook.postgres.old_schema import opened_old_schema
from tallybook.usecases.take_over import take_over
from tallybook.usecases.verify import verify

TABLES = """
create schema hubspot_sync;
create table hubspot_sync.hubspot_contact_credits (
    id uuid primary key default gen_random_uuid(), hubspot_id text unique, student_id text not null,
    email text not null, firstname text, lastname text, sj_credits int default 0, cs_credits int default 0,
    sjmini_credits int default 0, mock_discussion_token int default 0, shared_mock_credits int default 0,
    ndecc_exam_date text, created_at timestamptz default now(), updated_at timestamptz default now(),
    unique (student_id, email));
create table hubspot_sync.hubspot_bookings (
    id uuid primary key default gen_random_uuid(), hubspot_id text unique, booking_id text,
    associated_mock_exam text, associated_contact_id text, student_id text, name text, student_email text,
    is_active text, attendance text, attending_location text, exam_date timestamp, dominant_hand text,
    token_used text, token_refunded text, token_refunded_at timestamptz, idempotency_key text unique,
    mock_type text, created_at timestamptz default now(), updated_at timestamptz default now());
"""


class Old:
    """The old database and the portal beside it."""

    def __init__(self, world):
        self.world = world
        self.remote = RemoteSide(world.portal, world.mirror)

    async def insert(self, table, **row):
        names = ", ".join(row)
        marks = ", ".join(["%s"] * len(row))
        await self.world.rows(f"insert into hubspot_sync.{table} ({names}) values ({marks})", *row.values())

    async def person(self, number, *, here=None, there=None):
        """A student in either or both, with these numbers; the record id in HubSpot, or None."""
        email, student_id = f"old{number}@example.com", str(1_600_000 + number)
        hubspot_id = None
        if there is not None:
            hubspot_id = await self.remote.contact(
                student_id=student_id, email=email, firstname="Ada", **there
            )
        if here is not None:
            await self.insert(
                "hubspot_contact_credits",
                hubspot_id=hubspot_id,
                student_id=student_id,
                email=email,
                firstname="Augusta",
                **here,
            )
        return hubspot_id

    async def booking(self, person, exam, *, hubspot_id=None, status="Active", number=1):
        booking_id = f"Situational Judgment-{1_600_000 + number}-{uuid4().hex[:6]}"
        row = {
            "id": uuid4(),
            "hubspot_id": hubspot_id,
            "booking_id": booking_id,
            "associated_mock_exam": exam,
            "associated_contact_id": person,
            "student_id": str(1_600_000 + number),
            "student_email": f"old{number}@example.com",
            "is_active": status,
            "token_used": "Situational Judgment Token",
            "idempotency_key": f"idem_{uuid4().hex}",
        }
        await self.insert("hubspot_bookings", **row)
        return row

    async def take_over(self, prefer, *, dry_run=False):
        told = []
        async with opened_old_schema(self.world.uri, "hubspot_sync") as tables:
            result = await take_over(
                self.world.mirror, tables, prefer=prefer, dry_run=dry_run, on_difference=told.append
            )
        return result, {(each.ref, each.field): (each.database, each.hubspot) for each in told}

    async def numbers(self, number, *names):
        found = dict(
            await self.world.rows(
                "select b.credit_type, b.balance from tallybook.credit_balances b"
                " join tallybook.contacts c on c.id = b.contact_id where c.student_id = %s",
                str(1_600_000 + number),
            )
        )
        return tuple(found.get(name) for name in names)

    async def expect_in_step(self):
        """After pushing, every number here is the one there, and everything adds up."""
        for _ in range(10):
            await self.world.due()
            await push_until(self.world.mirror, max_s=30)
            if not await self.world.outbox():
                break
        assert await self.world.outbox() == {}
        for hubspot_id, name, balance in await self.world.rows(
            "select c.hubspot_id, b.credit_type, b.balance from tallybook.contacts c"
            " join tallybook.credit_balances b on b.contact_id = c.id where b.crm_base is not null"
        ):
            shown = await self.world.properties(CONTACT, hubspot_id)
            assert int(shown.get(name) or 0) == balance, (hubspot_id, name)
        report = await verify(self.world.db)
        assert not report.violations, report.violations


async def some_people(old):
    """Equal on both sides; different; only in the old database; only in HubSpot; below zero."""
    return [
        await old.person(1, here={"sj_credits": 3}, there={"sj_credits": 3}),
        await old.person(2, here={"sj_credits": 1, "cs_credits": 2}, there={"sj_credits": 4}),
        await old.person(3, here={"sj_credits": 5}),
        await old.person(4, there={"cs_credits": 6}),
        await old.person(5, here={"sj_credits": -2}, there={"sj_credits": 1}),
    ]
