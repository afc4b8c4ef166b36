"""Whatever people do in whatever order: the database says and holds what a simple model says and holds."""

import asyncio
import json
from functools import partial

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from machine.model import TOKENS, TYPES, Model, Refused, Session
from support.factories import make_contacts, make_mock_exam, remote_contact, student
from tallybook.domain.errors import Refusal
from tallybook.postgres.pool import Database
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.book_seat import book_seat, book_with_override
from tallybook.usecases.cancel_booking import cancel_as_staff, cancel_booking, preview_cancellation
from tallybook.usecases.cancel_bookings import cancel_bookings
from tallybook.usecases.grant_credits import grant_credits
from tallybook.usecases.idempotency import Idempotency
from tallybook.usecases.move_booking import move_as_staff, move_booking
from tallybook.usecases.verify import verify

SJ, CS = "Situational Judgment", "Clinical Skills"
SESSIONS = (
    Session(SJ, 7, 9, 12, 2),
    Session(SJ, 7, 13, 16, 1),
    Session(SJ, 8, 9, 12, 1),
    Session(SJ, 9, 9, 12, 3),
    Session(CS, 7, 9, 12, 2),
    Session(CS, 7, 12, 15, 1),
    Session(CS, 8, 10, 13, 2),
    Session(CS, 9, 12, 14, 1),
)
CLOSED_AT_FIRST = 3
FIRST_CREDITS = ((1, 1, 1), (2, 0, 0), (0, 1, 2))
STAFF = "cli:test"
# Everybody is stored, so there is nobody to ask HubSpot for.
NOBODY_IS_MISSING = None

students = st.integers(0, len(FIRST_CREDITS) - 1)
sessions = st.integers(0, len(SESSIONS) - 1)
# Which of the bookings made so far, the newest first.
which = st.integers(0, 7)
credit_types = st.sampled_from(TYPES)

_NUMBERS = """
    select
        (select coalesce(jsonb_object_agg(contact_id || ' ' || credit_type, balance), '{}')
         from tallybook.credit_balances where contact_id = any(%(contacts)s)),
        (select coalesce(
            jsonb_object_agg(id::text, jsonb_build_array(contact_id, mock_exam_id, token_used)), '{}')
         from tallybook.bookings where contact_id = any(%(contacts)s) and status <> 'Cancelled'),
        (select jsonb_object_agg(id::text, total_bookings)
         from tallybook.mock_exams where id = any(%(exams)s)),
        (select count(*) from tallybook.credit_entries), (select count(*) from tallybook.bookings),
        (select count(*) from tallybook.audit_log), (select count(*) from tallybook.idempotency_keys),
        (select sum(version) from tallybook.outbox)
"""


class Bookings(RuleBasedStateMachine):
    """Three students, the staff and HubSpot, and eight sessions of two types."""

    uri = ""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.db = Database(self.uri, size=1)
        self.owner = None

    def run(self, awaitable):
        return self.loop.run_until_complete(awaitable)

    @initialize()
    def begin(self):
        self.run(self._begin())
        self.before = self.run(self._numbers())

    async def _begin(self):
        self.owner = await psycopg.AsyncConnection.connect(self.uri, autocommit=True)
        self.contacts = []
        first = {}
        for number, amounts in enumerate(FIRST_CREDITS):
            amount_of = dict(zip(TYPES, amounts, strict=True))
            self.contacts += await make_contacts(self.db, 1, credits=amount_of)
            first |= {(number, name): amount for name, amount in amount_of.items()}
        self.exams = [
            await make_mock_exam(
                self.db,
                mock_type=each.mock_type,
                days=each.day,
                start=f"{each.start:02}:00",
                end=f"{each.end:02}:00",
                capacity=each.capacity,
                activation="inactive" if number == CLOSED_AT_FIRST else "active",
            )
            for number, each in enumerate(SESSIONS)
        ]
        is_open = [number != CLOSED_AT_FIRST for number in range(len(SESSIONS))]
        self.model = Model(list(SESSIONS), dict(first), is_open, shown_by_hubspot=dict(first))
        self.ids = []

    async def _numbers(self):
        cursor = await self.owner.execute(
            _NUMBERS, {"contacts": [c.id for c in self.contacts], "exams": [e.id for e in self.exams]}
        )
        return await cursor.fetchone()

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
        assert code == refused, (code, refused)
        now = self.run(self._numbers())
        if code is not None:
            assert now == self.before, "a refusal has changed something"
        self.before = now
        data = json.loads(answer.data) if answer is not None else None
        return answer, data, expected

    def compare(self):
        """The database holds what the model holds."""
        balances, live, seats, *_ = self.before
        for (number, name), amount in self.model.credits.items():
            assert balances[f"{self.contacts[number].id} {name}"] == amount, (number, name, balances)
        assert live == {
            self.ids[n]: [
                str(self.contacts[b.student].id),
                str(self.exams[b.session].id),
                TOKENS[b.paid],
            ]
            for n, b in enumerate(self.model.bookings)
            if b.live
        }
        assert [seats[str(exam.id)] for exam in self.exams] == self.model.seats()

    def caller(self, number):
        return {"caller": student(self.contacts[number]), "pair": None}

    def booking(self, back):
        """The number of a booking made earlier."""
        return len(self.model.bookings) - 1 - back % len(self.model.bookings)

    def after_booking(self, who, answer, data, expected):
        if answer is not None:
            outcome, replayed, number = expected
            assert (answer.outcome, answer.replayed) == (outcome, replayed)
            if number == len(self.ids):
                self.ids.append(data["id"])
            assert number is None or data["id"] == self.ids[number]
            if not replayed and outcome == "created":
                self.credits_are(who, data)
        self.compare()

    def credits_are(self, who, data):
        """An answer's `credits_after` are the credits there are."""
        for name in TYPES:
            assert data["credits_after"][name] == self.model.credits[who, name]

    @rule(who=students, at=sessions, key=st.sampled_from((None, None, "a", "b")))
    def book(self, who, at, key):
        idempotency = key and Idempotency(key, "POST /api/bookings/create", b"%d" % at)
        asking = book_seat(
            self.db,
            NOBODY_IS_MISSING,
            **self.caller(who),
            mock_exam_id=str(self.exams[at].id),
            idempotency=idempotency,
        )
        self.after_booking(who, *self.step(asking, partial(self.model.book, who, at, key=key)))

    @precondition(lambda self: self.model.keys)
    @rule(back=which)
    def repeat_a_request_with_its_key(self, back):
        keys = sorted(self.model.keys)
        who, key = keys[back % len(keys)]
        self.book(who, self.model.keys[who, key][0], key)

    @rule(who=students, at=sessions)
    def ask_what_booking_would_do(self, who, at):
        before = self.before
        asking = book_seat(
            self.db,
            NOBODY_IS_MISSING,
            **self.caller(who),
            mock_exam_id=str(self.exams[at].id),
            dry_run=True,
        )
        self.after_booking(who, *self.step(asking, partial(self.model.book, who, at, dry_run=True)))
        assert self.before == before

    @rule(who=students, at=sessions)
    def book_as_staff(self, who, at):
        asking = book_with_override(
            self.db,
            contact_id=str(self.contacts[who].id),
            mock_exam_id=str(self.exams[at].id),
            actor=STAFF,
            reason="for a test",
        )
        self.after_booking(who, *self.step(asking, partial(self.model.book, who, at, override=True)))

    def after_cancelling(self, number, answer, data, expected):
        if answer is not None:
            assert answer.outcome == expected[0]
            assert (data["credit_type"], data["credits_restored"]) == (expected[1], int(bool(expected[1])))
            if not data.get("dry_run"):
                self.credits_are(self.model.bookings[number].student, data)
        self.compare()

    @precondition(lambda self: self.model.bookings)
    @rule(who=students, back=which)
    def cancel_somebodys(self, who, back):
        number = self.booking(back)
        asking = cancel_booking(self.db, NOBODY_IS_MISSING, **self.caller(who), booking=self.ids[number])
        self.after_cancelling(number, *self.step(asking, partial(self.model.cancel, who, number)))

    @precondition(lambda self: self.model.bookings)
    @rule(back=which)
    def cancel_ones_own(self, back):
        self.cancel_somebodys(self.model.bookings[self.booking(back)].student, back)

    @precondition(lambda self: self.model.bookings)
    @rule(who=students, back=which)
    def preview(self, who, back):
        number, before = self.booking(back), self.before
        asking = preview_cancellation(
            self.db, NOBODY_IS_MISSING, **self.caller(who), booking=self.ids[number]
        )
        model = partial(self.model.cancel, who, number, dry_run=True)
        answer, data, expected = self.step(asking, model)
        self.after_cancelling(number, answer, data, expected)
        assert answer is None or data["allowed"] == self.model.bookings[number].live
        assert self.before == before

    @precondition(lambda self: self.model.bookings)
    @rule(back=which, refund=st.sampled_from((None, True, False)))
    def cancel_by_staff(self, back, refund):
        number = self.booking(back)
        asking = cancel_as_staff(
            self.db, booking=self.ids[number], actor=STAFF, reason="for a test", refund=refund
        )
        model = partial(self.model.cancel, None, number, refund=refund is not False)
        self.after_cancelling(number, *self.step(asking, model))

    @precondition(lambda self: self.model.bookings)
    @rule(who=students, backs=st.lists(which, min_size=1, max_size=4))
    def cancel_several(self, who, backs):
        numbers = [self.booking(back) for back in backs]
        asking = cancel_bookings(
            self.db, NOBODY_IS_MISSING, **self.caller(who), bookings=[self.ids[n] for n in numbers]
        )
        _, data, expected = self.step(asking, partial(self._several, who, numbers))
        told = [
            (each["data"]["credit_type"], bool(each["data"].get("idempotent")))
            if each["success"]
            else each["error"]["code"]
            for each in data["results"]
        ]
        assert told == expected
        assert data["summary"] == {
            "total": len(numbers),
            "cancelled": sum(each[1] is False for each in expected),
            "failed": expected.count("BOOKING_NOT_FOUND"),
        }
        self.credits_are(who, data)
        self.compare()

    def _several(self, who, numbers):
        told = []
        for number in numbers:
            try:
                outcome, back = self.model.cancel(who, number)
                told.append((back, outcome == "already"))
            except Refused as no:
                told.append(no.code)
        return told

    @precondition(lambda self: self.model.bookings)
    @rule(who=students, back=which, at=sessions)
    def move_somebodys(self, who, back, at):
        number = self.booking(back)
        asking = move_booking(
            self.db,
            NOBODY_IS_MISSING,
            **self.caller(who),
            booking=self.ids[number],
            mock_exam_id=str(self.exams[at].id),
        )
        self.after_moving(number, *self.step(asking, partial(self.model.move, who, number, at)))

    @precondition(lambda self: any(each.live for each in self.model.bookings))
    @rule(back=which, at=st.integers(0, len(SESSIONS) // 2 - 1))
    def move_ones_own(self, back, at):
        live = [n for n, each in enumerate(self.model.bookings) if each.live]
        number = live[-1 - back % len(live)]
        # The first half of the sessions is of one type, the second of the other.
        at += self.model.bookings[number].session // (len(SESSIONS) // 2) * (len(SESSIONS) // 2)
        self.move_somebodys(self.model.bookings[number].student, len(self.ids) - 1 - number, at)

    @precondition(lambda self: self.model.bookings)
    @rule(back=which, at=sessions)
    def move_by_staff(self, back, at):
        number = self.booking(back)
        asking = move_as_staff(
            self.db, booking=self.ids[number], mock_exam_id=str(self.exams[at].id), actor=STAFF
        )
        self.after_moving(number, *self.step(asking, partial(self.model.move, None, number, at)))

    def after_moving(self, number, answer, data, expected):
        if answer is not None:
            assert (answer.outcome, data["id"]) == (expected, self.ids[number])
            self.credits_are(self.model.bookings[number].student, data)
        self.compare()

    @rule(who=students, what=credit_types, number=st.integers(-2, 2))
    def grant_or_correct(self, who, what, number):
        asking = grant_credits(
            self.db,
            contact=str(self.contacts[who].id),
            credit_type=what,
            credits=number,
            reason="for a test",
            actor=STAFF,
        )
        self.step(asking, partial(self.model.grant, who, what, number))
        self.compare()

    @rule(who=students, what=credit_types, value=st.integers(0, 3))
    def edit_in_hubspot(self, who, what, value):
        contact = self.contacts[who]
        shown = remote_contact(
            hubspot_id=contact.hubspot_id,
            student_id=contact.student_id,
            email=contact.email,
            balances={what: value},
        )
        self.run(absorb_contacts(self.db, [shown], first_reason="import"))
        self.model.edit_in_hubspot(who, what, value)
        self.before = self.run(self._numbers())
        self.compare()

    @rule(at=sessions)
    def open_or_close(self, at):
        self.model.open[at] = not self.model.open[at]
        word = "active" if self.model.open[at] else "inactive"
        self.run(
            self.owner.execute(
                "update tallybook.mock_exams set activation = %s where id = %s", (word, self.exams[at].id)
            )
        )
        self.before = self.run(self._numbers())
        self.compare()

    def teardown(self):
        try:
            if self.owner is not None:
                report = self.run(verify(self.db))
                assert not report.violations, report.violations
                self.run(self.owner.close())
        finally:
            self.run(self.db.close())
            self.loop.close()


def test_in_any_order_the_database_does_what_the_model_does(database_uri):
    """Outcome, refusal, balances, seats and bookings agree after each of some two thousand steps."""

    class OnThisDatabase(Bookings):
        uri = database_uri

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
