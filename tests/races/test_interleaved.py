"""Everything at random and at once, on few students and few exams: every number still adds up."""

import asyncio
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from races.barrier import deadlocks, granting, open_pool, told_by
from support.factories import book, cancel, make_contacts, make_mock_exam, move, remote_contact
from tallybook.postgres.pool import Database
from tallybook.usecases.absorb_contacts import absorb_contacts

WORKERS = 8
SECONDS = float(os.environ.get("TALLYBOOK_RACE_S", "15"))

# What each kind of request may be told; above all no LOCK_TIMEOUT, which a deadlock would surface as.
EXPECTED = {
    "book": {"created", "already", "EXAM_FULL", "DUPLICATE_BOOKING", "TIME_CONFLICT", "INSUFFICIENT_CREDITS"},
    "cancel": {"ok", "already", "BOOKING_NOT_FOUND"},
    "move": {"ok", "already", "BOOKING_NOT_FOUND", "BOOKING_NOT_LIVE", "EXAM_FULL", "DUPLICATE_BOOKING"}
    | {"TIME_CONFLICT", "MOCK_TYPE_MISMATCH"},
    "grant": {"created", "BALANCE_TOO_LOW"},
    "absorb": {"ok"},
}


@dataclass
class Everything:
    """The students, the exams and the newest bookings, and what one may ask about them."""

    db: Database
    contacts: list
    exams: list
    bookings: list = field(default_factory=list)

    async def book(self, chance):
        """A new booking, remembered with its student."""
        who = chance.choice(self.contacts)
        data = await book(self.db, who, chance.choice(self.exams))
        if data["_outcome"] == "created":
            self.bookings.append((who, data))
            del self.bookings[:-60]
        return data

    def _any_booking(self, chance):
        who, booking = chance.choice(self.bookings)
        return (chance.choice(self.contacts) if chance.random() < 0.05 else who), booking

    async def cancel(self, chance):
        """Mostly by its student, sometimes by somebody who has no business with it."""
        return await cancel(self.db, *self._any_booking(chance))

    async def move(self, chance):
        """As cancelling, into any exam."""
        return await move(self.db, *self._any_booking(chance), chance.choice(self.exams))

    async def grant(self, chance):
        """One or two credits more, or one less."""
        return await granting(self.db, chance.choice(self.contacts), chance.choice((-1, 1, 2)))

    async def absorb(self, chance):
        """HubSpot shows new numbers for three students, in no order."""
        shown = [
            remote_contact(
                hubspot_id=each.hubspot_id,
                student_id=each.student_id,
                email=each.email,
                credits={"sj_credits": chance.randrange(8), "cs_credits": chance.randrange(8)},
                updated_at=datetime.now(UTC),
            )
            for each in chance.sample(self.contacts, 3)
        ]
        await absorb_contacts(self.db, shown, first_reason="import")
        return {"_outcome": "ok"}


async def six_exams(db):
    """Two types on four days; on two of them they overlap."""
    small = [await make_mock_exam(db, days=day, capacity=4) for day in (7, 8, 9)]
    other = {"mock_type": "Clinical Skills", "start": "11:00", "end": "14:00", "capacity": 6}
    return small + [await make_mock_exam(db, days=day, **other) for day in (7, 8, 10)]


async def work(everything, seed, until, told):
    """One worker: asks for anything until the time is over, and counts what it is told."""
    chance = random.Random(seed)
    while time.monotonic() < until:
        (kind,) = chance.choices(("book", "cancel", "move", "grant", "absorb"), (8, 4, 5, 1, 1))
        if kind in {"cancel", "move"} and not everything.bookings:
            continue
        word, _ = await told_by(getattr(everything, kind)(chance))
        told[kind, word] += 1


async def test_everything_at_once_adds_up(database_uri, owner):
    """Eight workers do anything for a while: only expected refusals, no deadlock; verified at the end."""
    told = Counter()

    async with open_pool(database_uri, size=WORKERS) as db:
        contacts = await make_contacts(db, 20, credits={"sj_credits": 3, "cs_credits": 3})
        everything = Everything(db, contacts, await six_exams(db))
        until = time.monotonic() + SECONDS
        await asyncio.gather(*(work(everything, seed, until, told) for seed in range(WORKERS)))

    print(f"{told.total()} requests in {SECONDS:.0f} s: {dict(sorted(told.items()))}")
    assert [each for each in told if each[1] not in EXPECTED[each[0]]] == []
    assert all(told[each] > 0 for each in (("book", "created"), ("cancel", "ok"), ("move", "ok")))
    assert await deadlocks(owner) == 0
