"""What students do: book, ask, repeat, cancel, move, and try with what is not theirs or no longer valid."""

from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from machine.model import OPEN, Refused
from machine.world import FIRST_CREDITS, NOBODY_IS_MISSING, SESSIONS, World
from tallybook.usecases.book_seat import book_seat
from tallybook.usecases.cancel_booking import cancel_booking, preview_cancellation
from tallybook.usecases.cancel_bookings import cancel_bookings
from tallybook.usecases.move_booking import move_booking

students = st.integers(0, len(FIRST_CREDITS) - 1)
sessions = st.integers(0, len(SESSIONS) - 1)
# Which of the bookings made so far, the newest first.
which = st.integers(0, 7)
keys = st.sampled_from((None, None, "a"))
NOT_A_BOOKING = ("", "nothing", "0", "00000000-0000-4000-8000-000000000000", "a' or 'a'='a")


def _no_such_booking():
    raise Refused("BOOKING_NOT_FOUND")


class Students(World):
    """Each of the three acts for themselves."""

    def booking_at(self, who, at, *, key=None, epoch=None, dry_run=False):
        return book_seat(
            self.db,
            NOBODY_IS_MISSING,
            **self.caller(who, epoch=epoch),
            mock_exam_id=str(self.exams[at].id),
            dry_run=dry_run,
            idempotency=self.key("book", key, at),
        )

    def after_booking(self, who, answer, data, expected, *, key=None, replayed=False):
        if answer is not None:
            outcome, number = expected
            assert answer.outcome == outcome
            self.kept((who, "book", key), answer, data, replayed=replayed)
            if number == len(self.ids):
                self.ids.append(data["id"])
            assert number is None or data["id"] == self.ids[number]
            if outcome == "created" and not replayed:
                self.credits_are(who, data)
        self.compare()

    @rule(who=students, at=sessions, key=keys)
    def book(self, who, at, key):
        before, replayed = self.before, (who, "book", key) in self.model.keys
        told = self.step(self.booking_at(who, at, key=key), partial(self.model.book, who, at, key=key))
        self.after_booking(who, *told, key=key, replayed=replayed)
        if replayed:
            self.expect_unchanged(before, "a replay")

    @rule(who=students, which_one=st.integers(0, 9))
    def book_what_is_open(self, who, which_one):
        """Most of what students try could work, so it is tried more often than the rest."""
        open_ones = [
            n for n, each in enumerate(self.model.sessions) if each.opening in OPEN and not each.past
        ]
        if open_ones:
            self.book(who, open_ones[which_one % len(open_ones)], None)

    @precondition(lambda self: self.live())
    @rule(back=which, which_one=st.integers(0, 9), key=keys)
    def book_beside_a_booking(self, back, which_one, key):
        """On the day of a booking there is something to collide with."""
        booking = self.model.bookings[self.one_of(self.live(), back)]
        day = self.model.sessions[booking.session].day
        that_day = [n for n, each in enumerate(self.model.sessions) if each.day == day]
        self.book(booking.student, that_day[which_one % len(that_day)], key)

    @rule(who=students, at=sessions)
    def book_with_an_old_token(self, who, at):
        epoch = self.model.students[who].epoch - 1
        if epoch:
            self.step(self.booking_at(who, at, epoch=epoch), partial(self.model.book, who, at, epoch=epoch))

    @rule(who=students, at=sessions, key=keys)
    def ask_what_booking_would_do(self, who, at, key):
        before = self.before
        answer, data, expected = self.step(
            self.booking_at(who, at, key=key, dry_run=True),
            partial(self.model.book, who, at, key=key, dry_run=True),
        )
        if answer is not None:
            assert answer.outcome == expected[0]
            assert data.get("dry_run", False) == (answer.outcome == "ok")
        self.expect_unchanged(before, "a dry run")

    def cancelling(self, who, number, *, key=None):
        return cancel_booking(
            self.db,
            NOBODY_IS_MISSING,
            **self.caller(who),
            booking=self.ids[number],
            idempotency=self.key("cancel", key, number),
        )

    def after_cancelling(self, number, answer, data, expected):
        if answer is not None:
            assert answer.outcome == expected[0]
            assert (data["credit_type"], data["credits_restored"]) == (expected[1], int(bool(expected[1])))
            self.credits_are(self.model.bookings[number].student, data)
        self.compare()

    @precondition(lambda self: self.model.bookings)
    @rule(who=students, back=which, key=keys)
    def cancel_somebodys(self, who, back, key):
        number, before = self.booking(back), self.before
        answer, data, expected = self.step(
            self.cancelling(who, number, key=key), partial(self.model.cancel, who, number, key=key)
        )
        if answer is not None:
            replayed = expected[0] == "replayed"
            self.kept((who, "cancel", key), answer, data, replayed=replayed)
            if replayed:
                self.expect_unchanged(before, "a replay")
                return
        self.after_cancelling(number, answer, data, expected)

    @precondition(lambda self: self.live())
    @rule(back=which, key=keys)
    def cancel_ones_own(self, back, key):
        number = self.one_of(self.live(), back)
        self.cancel_somebodys(self.model.bookings[number].student, len(self.ids) - 1 - number, key)

    @rule(who=students, ref=st.sampled_from(NOT_A_BOOKING))
    def name_a_booking_that_is_none(self, who, ref):
        asking = cancel_booking(self.db, NOBODY_IS_MISSING, **self.caller(who), booking=ref)
        self.step(asking, _no_such_booking)

    @precondition(lambda self: self.model.bookings)
    @rule(who=students, back=which)
    def preview(self, who, back):
        number, before = self.booking(back), self.before
        asking = preview_cancellation(
            self.db, NOBODY_IS_MISSING, **self.caller(who), booking=self.ids[number]
        )
        answer, data, expected = self.step(asking, partial(self.model.preview, who, number))
        if answer is not None:
            refusal, back_then = expected
            assert (data["allowed"], data["refusal"]) == (refusal is None, refusal)
            assert (data["credit_type"], data["credits_restored"]) == (back_then, int(bool(back_then)))
        self.expect_unchanged(before, "a preview")

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
            "failed": sum(isinstance(each, str) for each in expected),
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
    @rule(who=students, back=which, at=sessions, key=keys, dry_run=st.booleans())
    def move_somebodys(self, who, back, at, key, dry_run):
        number, before = self.booking(back), self.before
        key = None if dry_run else key
        asking = move_booking(
            self.db,
            NOBODY_IS_MISSING,
            **self.caller(who),
            booking=self.ids[number],
            mock_exam_id=str(self.exams[at].id),
            dry_run=dry_run,
            idempotency=self.key("move", key, number, at),
        )
        model = partial(self.model.move, who, number, at, key=key, dry_run=dry_run)
        answer, data, expected = self.step(asking, model)
        if answer is not None:
            self.told["would move" if dry_run else "moved"] += expected == "ok"
            self.kept((who, "move", key), answer, data, replayed=expected == "replayed")
            if expected != "replayed":
                assert (answer.outcome, data["id"]) == (expected, self.ids[number])
                self.credits_are(who, data)
        if dry_run or expected == "replayed":
            self.expect_unchanged(before, "a dry run or replay")
        self.compare()

    @precondition(lambda self: self.live())
    @rule(back=which, to=st.integers(0, 3), key=keys, dry_run=st.booleans())
    def move_ones_own(self, back, to, key, dry_run):
        number = self.one_of(self.live(), back)
        kind = self.model.sessions[self.model.bookings[number].session].mock_type
        of_its_type = [n for n, each in enumerate(self.model.sessions) if each.mock_type == kind]
        at = of_its_type[to % len(of_its_type)]
        self.move_somebodys(
            self.model.bookings[number].student, len(self.ids) - 1 - number, at, key, dry_run=dry_run
        )

    def possible_moves(self):
        """(booking, session) of each move that a student could make now."""
        return [
            (number, at)
            for number in self.live()
            for at in range(len(SESSIONS))
            if self._may_move(number, at)
        ]

    def _may_move(self, number, at):
        try:
            return self.model.move(self.model.bookings[number].student, number, at, dry_run=True) == "ok"
        except Refused:
            return False

    @precondition(lambda self: self.possible_moves())
    @rule(which_one=st.integers(0, 9), key=keys, dry_run=st.booleans())
    def move_where_one_can(self, which_one, key, dry_run):
        """Few moves drawn blindly are allowed, and a dry run shows what it is worth only where one is."""
        possible = self.possible_moves()
        number, at = possible[which_one % len(possible)]
        self.move_somebodys(
            self.model.bookings[number].student, len(self.ids) - 1 - number, at, key, dry_run=dry_run
        )

    @precondition(lambda self: self.model.keys)
    @rule(which_key=which)
    def repeat_an_old_request_with_its_key(self, which_key):
        known = sorted(self.model.keys, key=str)
        who, route, key = known[which_key % len(known)]
        request = self.model.keys[who, route, key]
        if route == "book":
            self.book(who, request, key)
        elif route == "cancel":
            self.cancel_somebodys(who, len(self.ids) - 1 - request, key)
        else:
            number, at = request
            self.move_somebodys(who, len(self.ids) - 1 - number, at, key, dry_run=False)

    @precondition(lambda self: any(route == "book" for _, route, _ in self.model.keys))
    @rule(which_key=which, at=sessions)
    def use_an_old_key_for_another_session(self, which_key, at):
        known = sorted((who, key) for who, route, key in self.model.keys if route == "book")
        who, key = known[which_key % len(known)]
        self.book(who, at, key)
