"""Everything at once: students, staff and HubSpot change the same few rows at random for a while."""

import asyncio
import json
import random
import time
from collections import Counter, deque
from datetime import UTC, datetime
from uuid import UUID

from races.crowd import (
    NOBODY_IS_MISSING,
    booking_by,
    cancelling_by,
    moving_by,
    result_of,
)
from support.factories import MIRRORED, Contact, MockExam, remote_contact, student
from tallybook.postgres.answers import Answer
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.book_seat import book_with_override
from tallybook.usecases.cancel_booking import cancel_as_staff
from tallybook.usecases.cancel_bookings import cancel_bookings
from tallybook.usecases.grant_credits import grant_credits

REFUSALS_THAT_MAY_COME = {
    "BALANCE_TOO_LOW",
    "BOOKING_NOT_FOUND",
    "BOOKING_NOT_LIVE",
    "DUPLICATE_BOOKING",
    "EXAM_FULL",
    "IDEMPOTENCY_KEY_REUSED",
    "INSUFFICIENT_CREDITS",
    "MOCK_TYPE_MISMATCH",
    "TIME_CONFLICT",
}
"""Nothing else may be said: no time-out, no conflict of locks, no error."""


def task_of(contacts, exams, *, seconds, seed):
    """What one process has to know."""
    return {
        "contacts": [[str(each.id), each.hubspot_id, each.student_id, each.email] for each in contacts],
        "exams": [str(each.id) for each in exams],
        "seconds": seconds,
        "seed": seed,
    }


class Worker:
    """One of those who act; its choices follow from its seed."""

    def __init__(self, db, task, number):
        self.db = db
        self.random = random.Random(f"{task['seed']}:{number}")
        self.contacts = [Contact(UUID(each[0]), *each[1:]) for each in task["contacts"]]
        self.exams = [MockExam(UUID(each), None, "", None, None, None, 0) for each in task["exams"]]
        # Old bookings are cancelled ones, and of those little can be learnt.
        self.seen = deque(maxlen=12)
        self.told = Counter()

    async def book(self):
        key = self.random.choice([None, None, f"key-{self.random.randrange(40)}"])
        contact, exam = self.random.choice(self.contacts), self.random.choice(self.exams)
        answer = await booking_by(self.db, contact, exam, key=key, body=exam.id.bytes)
        self.seen.append((contact, json.loads(answer.data)))
        return answer

    def cancel(self):
        contact, booking = self.random.choice(self.seen)
        key = self.random.choice([None, f"key-{self.random.randrange(40)}"])
        return cancelling_by(self.db, contact, booking, key=key, body=booking["id"].encode())

    def cancel_many(self):
        contact, _ = self.random.choice(self.seen)
        own = [booking["id"] for who, booking in self.seen if who == contact]
        self.random.shuffle(own)
        return cancel_bookings(
            self.db, NOBODY_IS_MISSING, caller=student(contact), pair=None, bookings=own[:4]
        )

    def cancel_as_staff(self):
        return cancel_as_staff(
            self.db,
            booking=self.random.choice(self.seen)[1]["id"],
            actor="cli:test",
            reason=None,
            refund=self.random.choice([None, True, False]),
        )

    def move(self):
        contact, booking = self.random.choice(self.seen)
        return moving_by(self.db, contact, booking, self.random.choice(self.exams))

    def override(self):
        return book_with_override(
            self.db,
            contact_id=str(self.random.choice(self.contacts).id),
            mock_exam_id=str(self.random.choice(self.exams).id),
            actor="cli:test",
            reason="a favour",
        )

    def grant(self):
        return grant_credits(
            self.db,
            contact=str(self.random.choice(self.contacts).id),
            credit_type=self.random.choice(MIRRORED),
            credits=self.random.choice([-2, -1, 1, 1, 2, 3]),
            reason="at random",
            actor="cli:test",
        )

    async def absorb(self):
        edited = self.random.sample(self.contacts, k=3)
        await absorb_contacts(
            self.db,
            [
                remote_contact(
                    hubspot_id=each.hubspot_id,
                    student_id=each.student_id,
                    email=each.email,
                    credits={name: self.random.randrange(6) for name in MIRRORED},
                    updated_at=datetime.now(UTC),
                )
                for each in edited
            ],
            first_reason="import",
        )
        return Answer(b"{}", "absorbed")

    def choose(self):
        if not self.seen:
            return self.book()
        return self.random.choices(
            [
                self.book,
                self.cancel,
                self.cancel_many,
                self.cancel_as_staff,
                self.move,
                self.override,
                self.grant,
                self.absorb,
            ],
            weights=[24, 10, 3, 4, 34, 4, 6, 4],
        )[0]()

    async def act(self, until):
        while time.monotonic() < until:
            self.told[(await result_of(self.choose())).word] += 1


async def hubbub(db, task):
    """Four workers act until the time is over; how many were told what."""
    until = time.monotonic() + task["seconds"]
    workers = [Worker(db, task, number) for number in range(4)]
    await asyncio.gather(*(each.act(until) for each in workers))
    return sum((each.told for each in workers), Counter())
