"""A database, the model beside it, and how the two are compared after each step."""

import asyncio
import json

import psycopg
from hypothesis.stateful import RuleBasedStateMachine, initialize
from psycopg import sql

from machine.model import TOKENS, TYPES, Model, Refused, Session, Student
from support.factories import make_contact, make_mock_exam, student
from tallybook.domain.errors import Refusal
from tallybook.postgres.pool import Database
from tallybook.usecases.idempotency import Idempotency
from tallybook.usecases.verify import verify

SJ, CS, TALK = "Situational Judgment", "Clinical Skills", "Mock Discussion"
SESSIONS = (
    Session(SJ, 7, 9, 12, 2),
    Session(SJ, 7, 13, 16, 1),
    Session(SJ, 8, 9, 12, 1),
    Session(SJ, 9, 9, 12, 3, opening="inactive"),
    Session(CS, 7, 9, 12, 2),
    Session(CS, 7, 12, 15, 1),
    Session(CS, 8, 10, 13, 2, opening="later"),
    Session(CS, -3, 9, 12, 2),
    Session(TALK, 7, 16, 17, 2, needs=(0,)),
    Session(TALK, 9, 11, 13, 1, needs=(0, 4)),
)
# The first and the last share a student ID, so that their bookings compete for one text.
FIRST_CREDITS = (("TWIN", (2, 1, 1, 1)), ("SINGLE", (3, 0, 0, 1)), ("TWIN", (1, 2, 2, 0)))
STAFF = "cli:test"
# Everybody is stored, so there is nobody to ask HubSpot for.
NOBODY_IS_MISSING = None

_STORED_AS = {
    "active": ("active", None),
    "inactive": ("inactive", None),
    "later": ("scheduled", "1 day"),
    "opened": ("scheduled", "-1 day"),
}
_NUMBERS = """
    select
        (select coalesce(jsonb_object_agg(contact_id || ' ' || credit_type, balance), '{}')
         from tallybook.credit_balances),
        (select coalesce(jsonb_object_agg(id::text,
            jsonb_build_array(contact_id, mock_exam_id, token_used, status, booking_id)), '{}')
         from tallybook.bookings),
        (select jsonb_object_agg(id::text, jsonb_build_array(total_bookings, capacity))
         from tallybook.mock_exams)
"""
# What changes without anybody's decision.
_NOT_DECIDED = {"rate_events", "crm_call_slots", "login_challenges"}


class World(RuleBasedStateMachine):
    """Three students, the staff and HubSpot, and ten sessions of three types."""

    server = None
    told = None

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.name = self.run(self.server.create_database())
        self.db = Database(self.server.uri(self.name), size=1)
        self.owner = None

    def run(self, awaitable):
        return self.loop.run_until_complete(awaitable)

    @initialize()
    def begin(self):
        self.run(self._begin())
        self.before = self.run(self.fingerprint())
        self.compare()

    async def _begin(self):
        self.owner = await psycopg.AsyncConnection.connect(self.server.uri(self.name), autocommit=True)
        self.contacts = [
            await make_contact(self.db, student_id=name, credits=dict(zip(TYPES, amounts, strict=True)))
            for name, amounts in FIRST_CREDITS
        ]
        self.exams = []
        for each in SESSIONS:
            self.exams.append(
                await make_mock_exam(
                    self.db,
                    mock_type=each.mock_type,
                    days=each.day,
                    start=f"{each.start:02}:00",
                    end=f"{each.end:02}:00",
                    capacity=each.capacity,
                    prerequisites=[self.exams[n] for n in each.needs],
                )
            )
        first = {
            (number, name): amount
            for number, (_, amounts) in enumerate(FIRST_CREDITS)
            for name, amount in zip(TYPES, amounts, strict=True)
        }
        self.model = Model(
            list(SESSIONS),
            [each.exam_on for each in self.exams],
            [Student(each.id, each.student_id) for each in self.contacts],
            dict(first),
            shown_by_hubspot=dict(first),
        )
        self.ids, self.first_answers = [], {}
        for number, each in enumerate(SESSIONS):
            await self.store_opening(number, each.opening)
        self._digest = await self._digest_of_everything()

    async def store_opening(self, at, opening):
        """A session is open, closed, or opens a day from now or opened a day ago."""
        activation, opens_in = _STORED_AS[opening]
        await self.owner.execute(
            "update tallybook.mock_exams set activation = %s, opens_at = now() + %s::interval where id = %s",
            (activation, opens_in, self.exams[at].id),
        )

    async def _digest_of_everything(self):
        cursor = await self.owner.execute(
            "select tablename from pg_tables where schemaname = 'tallybook' order by 1"
        )
        names = [name for (name,) in await cursor.fetchall() if name not in _NOT_DECIDED]
        return sql.SQL(" union all ").join(
            sql.SQL(
                "select {}, md5(coalesce(string_agg(t::text, '|' order by t::text), '')) from {} t"
            ).format(sql.Literal(name), sql.Identifier("tallybook", name))
            for name in names
        )

    async def fingerprint(self):
        """A digest of each table."""
        cursor = await self.owner.execute(self._digest)
        return dict(await cursor.fetchall())

    def step(self, asking, model):
        """Both are asked; both grant or both refuse with one code. Gives (answer, data, model's answer)."""
        try:
            expected, refused = model(), None
        except Refused as no:
            expected, refused = None, no.code
        try:
            answer, code = self.run(asking), None
        except Refusal as no:
            answer, code = None, no.code
        assert code == refused, f"the database says {code}, the model {refused}"
        self.told[code or ("replayed" if answer.replayed else answer.outcome)] += 1
        now = self.run(self.fingerprint())
        if code is not None:
            self.expect_unchanged(now, "a refusal")
        self.before = now
        data = json.loads(answer.data) if answer is not None else None
        return answer, data, expected

    def expect_unchanged(self, now, what):
        changed = [name for name in now if now[name] != self.before[name]]
        assert not changed, f"{what} changed {changed}"

    def changed(self):
        """Something was done that has no answer."""
        self.before = self.run(self.fingerprint())
        self.compare()

    def compare(self):
        """The database holds what the model holds."""
        balances, bookings, seats = self.run(self._numbers())
        for (number, name), amount in self.model.credits.items():
            assert balances[f"{self.contacts[number].id} {name}"] == amount, (number, name, balances)
        assert bookings == {
            self.ids[n]: [
                str(self.contacts[b.student].id),
                str(self.exams[b.session].id),
                TOKENS[b.paid],
                b.status.value,
                b.text,
            ]
            for n, b in enumerate(self.model.bookings)
        }
        taken = self.model.seats()
        assert seats == {
            str(exam.id): [taken[n], self.model.sessions[n].capacity] for n, exam in enumerate(self.exams)
        }

    async def _numbers(self):
        cursor = await self.owner.execute(_NUMBERS)
        return await cursor.fetchone()

    def caller(self, number, *, epoch=None):
        known = self.model.students[number].epoch
        return {"caller": student(self.contacts[number], epoch=epoch or known), "pair": None}

    def key(self, route, key, *request):
        return key and Idempotency(key, route, repr(request).encode())

    def kept(self, name, answer, data, *, replayed):
        """A replay is the first answer again, and nothing else; a first answer is kept to compare with."""
        assert answer.replayed == replayed
        if replayed:
            assert data == self.first_answers[name]
        elif name[-1] is not None:
            self.first_answers[name] = data

    def booking(self, back):
        """The number of a booking made earlier."""
        return len(self.model.bookings) - 1 - back % len(self.model.bookings)

    def live(self):
        """The numbers of the live bookings."""
        return [n for n, each in enumerate(self.model.bookings) if each.live]

    def one_of(self, numbers, back):
        """One of these bookings, the newest first."""
        return numbers[-1 - back % len(numbers)]

    def credits_are(self, who, data):
        """An answer's `credits_after` are the credits there are."""
        for name in TYPES:
            assert data["credits_after"][name] == self.model.credits[who, name]

    def teardown(self):
        try:
            if self.owner is not None:
                report = self.run(verify(self.db))
                assert not report.violations, report.violations
                self.run(self.owner.close())
        finally:
            self.run(self.db.close())
            self.run(self.server.drop_database(self.name))
            self.loop.close()
