"""What the staff, HubSpot and time do: override, refund, grant, open and close, fill in attendance, pass."""

from datetime import UTC, datetime, timedelta
from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from machine.model import TYPES
from machine.students import keys, sessions, students, which
from machine.world import STAFF, World
from support.factories import remote_contact
from tallybook.domain.bookings import BookingStatus
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.book_seat import book_with_override
from tallybook.usecases.cancel_booking import cancel_as_staff
from tallybook.usecases.grant_credits import grant_credits
from tallybook.usecases.move_booking import move_as_staff

credit_types = st.sampled_from(TYPES)


class Office(World):
    """Those who may more than students, and what nobody decides."""

    @rule(who=students, at=sessions, dry_run=st.booleans())
    def book_as_staff(self, who, at, dry_run):
        before = self.before
        asking = book_with_override(
            self.db,
            contact_id=str(self.contacts[who].id),
            mock_exam_id=str(self.exams[at].id),
            actor=STAFF,
            reason="for a test",
            dry_run=dry_run,
        )
        model = partial(self.model.book, who, at, override=True, dry_run=dry_run)
        self.after_booking(who, *self.step(asking, model))
        if dry_run:
            self.expect_unchanged(before, "a dry run")

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
    @rule(back=which, at=sessions)
    def move_by_staff(self, back, at):
        number = self.booking(back)
        asking = move_as_staff(
            self.db, booking=self.ids[number], mock_exam_id=str(self.exams[at].id), actor=STAFF
        )
        answer, data, expected = self.step(asking, partial(self.model.move, None, number, at))
        if answer is not None:
            assert (answer.outcome, data["id"]) == (expected, self.ids[number])
            self.credits_are(self.model.bookings[number].student, data)
        self.compare()

    @rule(who=students, what=credit_types, number=st.integers(-2, 2), dry_run=st.booleans())
    def grant_or_correct(self, who, what, number, dry_run):
        before, had = self.before, dict(self.model.credits)
        asking = grant_credits(
            self.db,
            contact=str(self.contacts[who].id),
            credit_type=what,
            credits=number,
            reason="for a test",
            actor=STAFF,
            dry_run=dry_run,
        )
        _, data, _ = self.step(asking, partial(self.model.grant, who, what, number))
        if data is not None:
            assert data["balance_after"] == self.model.credits[who, what]
        if dry_run:
            self.model.credits = had
            self.expect_unchanged(before, "a dry run")
        self.compare()

    def absorb(self, who, what, value, *, at):
        contact = self.contacts[who]
        shown = remote_contact(
            hubspot_id=contact.hubspot_id,
            student_id=contact.student_id,
            email=contact.email,
            balances={what: value},
            updated_at=at,
        )
        self.run(absorb_contacts(self.db, [shown], first_reason="import"))

    @rule(who=students, what=credit_types, value=st.integers(0, 3), twice=st.booleans())
    def edit_in_hubspot(self, who, what, value, twice):
        now = datetime.now(UTC)
        for _ in range(1 + twice):
            self.absorb(who, what, value, at=now)
        self.model.edit_in_hubspot(who, what, value)
        self.changed()

    @rule(who=students, what=credit_types, value=st.integers(0, 3))
    def hear_late_what_hubspot_showed_before(self, who, what, value):
        self.absorb(who, what, value, at=datetime.now(UTC) - timedelta(days=1))
        self.expect_unchanged(self.run(self.fingerprint()), "an older answer")

    @rule(at=sessions, opening=st.sampled_from(("active", "opened", "active", "opened", "inactive", "later")))
    def open_close_or_schedule(self, at, opening):
        self.model.change(at, opening=opening)
        self.run(self.store_opening(at, opening))
        self.changed()

    @rule(at=sessions, capacity=st.integers(0, 4))
    def change_the_capacity(self, at, capacity):
        capacity = max(capacity, self.model.seats()[at])
        self.model.change(at, capacity=capacity)
        self.run(
            self.owner.execute(
                "update tallybook.mock_exams set capacity = %s where id = %s", (capacity, self.exams[at].id)
            )
        )
        self.changed()

    def pass_by(self, at):
        """Time stands still in a test, so the session goes into the past instead, to a day of its own."""
        if self.model.sessions[at].past:
            return
        days = self.model.sessions[at].day + 10 + at
        self.model.change(at, day=self.model.sessions[at].day - days)
        self.model.dates[at] -= timedelta(days=days)
        self.run(self._shift(self.exams[at].id, days))
        self.changed()

    @precondition(lambda self: sum(each.past for each in self.model.sessions) < 3)
    @rule(at=sessions)
    def let_a_session_pass(self, at):
        self.pass_by(at)

    @precondition(lambda self: self.live() and sum(each.past for each in self.model.sessions) < 4)
    @rule(back=which, key=keys)
    def cancel_after_the_session(self, back, key):
        number = self.one_of(self.live(), back)
        self.pass_by(self.model.bookings[number].session)
        self.cancel_somebodys(self.model.bookings[number].student, len(self.ids) - 1 - number, key)

    async def _shift(self, exam_id, days):
        async with self.owner.transaction():
            await self.owner.execute(
                "update tallybook.mock_exams set exam_on = exam_on - %(days)s,"
                " starts_at = (exam_on - %(days)s + start_time) at time zone time_zone,"
                " ends_at = (exam_on - %(days)s + end_time) at time zone time_zone where id = %(exam)s",
                {"days": days, "exam": exam_id},
            )
            await self.owner.execute(
                "update tallybook.bookings b set exam_on = e.exam_on, starts_at = e.starts_at,"
                " ends_at = e.ends_at from tallybook.mock_exams e"
                " where e.id = b.mock_exam_id and e.id = %(exam)s",
                {"exam": exam_id},
            )

    @precondition(lambda self: self.live())
    @rule(back=which)
    def fill_in_attendance(self, back):
        number = self.one_of(self.live(), back)
        self.model.bookings[number].status = BookingStatus.COMPLETED
        self.run(
            self.owner.execute(
                "update tallybook.bookings set status = 'Completed', attendance = 'Yes' where id = %s",
                (self.ids[number],),
            )
        )
        self.changed()

    @rule(who=students)
    def sign_out_everywhere(self, who):
        self.model.sign_out(who)
        self.run(
            self.owner.execute(
                "update tallybook.contacts set session_epoch = session_epoch + 1 where id = %s",
                (self.contacts[who].id,),
            )
        )
        self.changed()
