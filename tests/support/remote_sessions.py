"""Contacts, mock exams and bookings in a simulated portal, as programs and people leave them there."""

import json
from datetime import UTC, datetime, time, timedelta
from itertools import count
from zoneinfo import ZoneInfo

from hubspot_simulator.portal_defaults import REQUIRES_ATTENDANCE
from support.factories import Contact

BOOKING_TO_CONTACT, BOOKING_TO_EXAM = 1301, 1303
TORONTO = ZoneInfo("America/Toronto")

_numbers = count(1)


def milliseconds(at):
    return str(round(at.timestamp() * 1000))


class RemoteSide:
    """One portal: what is made here is made over HTTP."""

    def __init__(self, portal, mirror):
        self.door = portal.door
        self.exams = mirror.client.connection.mock_exams_object
        self.bookings = mirror.client.connection.bookings_object

    async def create(self, object_type, properties, links=()):
        """A record made by a program, with associations [(record id, association type)]; its id."""
        answer = await self.door.post(
            f"/crm/objects/2026-09/{object_type}",
            headers={"Authorization": "Bearer pat-test"},
            json={
                "properties": properties,
                "associations": [
                    {
                        "to": {"id": record_id},
                        "types": [{"associationCategory": "USER_DEFINED", "associationTypeId": kind}],
                    }
                    for record_id, kind in links
                ],
            },
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    async def edit(self, object_type, record_id, **properties):
        """A person's edit."""
        body = {"object_type": object_type, "id": record_id, "properties": properties}
        answer = await self.door.post("/_simulator/edits", json=body)
        assert answer.status_code == 200, answer.text

    async def archive(self, object_type, record_id, *, restore=False):
        body = {"object_type": object_type, "id": record_id, "archived": not restore}
        answer = await self.door.post("/_simulator/edits", json=body)
        assert answer.status_code == 200, answer.text

    async def show(self, object_type, record_id):
        """Everything the portal knows of a record."""
        return (await self.door.get(f"/_simulator/records/{object_type}/{record_id}")).json()

    async def contact(self, *, student_id=None, **properties):
        n = next(_numbers)
        known = {"email": f"remote{n}@example.com", "student_id": student_id or f"18{n:05}"}
        return await self.create("contacts", known | {k: str(v) for k, v in properties.items()})

    async def exam(self, *, days=7, start=(9, 0), end=(12, 0), capacity=10, requires=(), **properties):
        """A mock exam `days` from today in Mississauga."""
        on = datetime.now(TORONTO).date() + timedelta(days=days)
        return await self.create(
            self.exams,
            {
                "mock_type": "Situational Judgment",
                "exam_date": on.isoformat(),
                "start_time": milliseconds(datetime.combine(on, time(*start), TORONTO)),
                "end_time": milliseconds(datetime.combine(on, time(*end), TORONTO)),
                "location": "Mississauga",
                "capacity": str(capacity),
                "total_bookings": "0",
                "is_active": "true",
                **properties,
            },
            [(each, REQUIRES_ATTENDANCE) for each in requires],
        )

    async def booking(self, contact, exam, *, links=None, **properties):
        """A booking of the two; `links` replaces its associations."""
        if links is None:
            links = [(contact, BOOKING_TO_CONTACT), (exam, BOOKING_TO_EXAM)]
        return await self.create(
            self.bookings,
            {
                "is_active": "Active",
                "token_used": "Situational Judgment Token",
                "booking_id": f"Situational Judgment-18{next(_numbers):05}-March 1, 2026",
                **properties,
            },
            links,
        )

    async def schedule(self, exam, *, on, start, end):
        """Staff set a date and times in Toronto's clock."""
        await self.edit(
            self.exams,
            exam,
            exam_date=on.isoformat(),
            start_time=milliseconds(datetime.combine(on, time(*start), TORONTO)),
            end_time=milliseconds(datetime.combine(on, time(*end), TORONTO)),
        )


async def ours(db, table, hubspot_id):
    """Our row for a record of HubSpot's, as a dictionary; None where there is none."""
    rows = await query(db, f"select to_jsonb(t) from tallybook.{table} t where t.hubspot_id = %s", hubspot_id)
    return json.loads(rows[0][0]) if rows else None


async def contact_of(db, hubspot_id):
    """Our contact for a record of HubSpot's."""
    row = await ours(db, "contacts", hubspot_id)
    return Contact(row["id"], hubspot_id, row["student_id"], row["email"])


async def query(db, text, *params):
    """The rows of any statement; of one that asks for no column, psycopg gives none."""
    assert "select from" not in text
    async with db.connection() as connection:
        cursor = await connection.execute(text, params)
        return await cursor.fetchall() if cursor.description else []


async def conflicts(db, **wanted):
    """Open conflicts as (kind, field, ours, theirs), of an object or all."""
    rows = await query(
        db,
        "select kind, field, ours, theirs from tallybook.sync_conflicts"
        " where resolved_at is null and (%s::uuid is null or object_id = %s::uuid) order by id",
        wanted.get("object_id"),
        wanted.get("object_id"),
    )
    return [tuple(row) for row in rows]


async def waiting(db):
    """What the outbox holds: {type: ids}."""
    found = {}
    for object_type, object_id in await query(
        db, "select object_type, object_id::text from tallybook.outbox"
    ):
        found.setdefault(object_type, set()).add(object_id)
    return found


async def import_is_over(db):
    """From now on a booking HubSpot shows for the first time was made by hand."""
    await query(
        db,
        "insert into tallybook.sync_state (name, value) values ('first_import',"
        " jsonb_build_object('started_at', clock_timestamp() - interval '1 hour',"
        " 'completed_at', clock_timestamp()))",
    )


def now():
    return datetime.now(UTC)
