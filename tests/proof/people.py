"""Those who edit: staff who type in HubSpot, students who use the API, staff who grant here."""

import asyncio
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import psycopg

from proof.chances import CHANCES, NO_NUMBERS
from proof.portal import Changed, Portal
from proof.stage import Stage, new_key
from proof.truth import CREDITS, MARGIN, PAYS, TOKENS, Promised, Student, Truth, last_number, readable

# HubSpot keeps 20 entries of a property's history.
MOST_UNREAD = 14
_RETRY_FOR_S = 180.0
_GRANT = """
    select (tallybook.grant_credits(%s, %s, %s, %s)) ->> 'balance_after'
"""
# Not by the transaction's number: one that was lost in a crash is given out again.
_WAS_GRANTED = "select 1 from tallybook.audit_details d where d.details ->> 'reason' = %s"


@dataclass
class People:
    """Everybody who edits, and what they were told. `aim`: how often the one just being pushed is chosen."""

    stage: Stage
    portal: Portal
    truth: Truth
    students: list[Student]
    # {HubSpot id or UUID: mock type}
    exams: dict[str, str]
    rng: random.Random
    aim: float = 0.5
    only: tuple[str, ...] = tuple(CHANCES)
    _hot: list[str] = field(default_factory=list)
    _locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def __post_init__(self):
        self._by_id = {each.hubspot_id: each for each in self.students}

    async def edit(self):
        """One random edit of one random person."""
        (name,) = self.rng.choices(self.only, [CHANCES[each] for each in self.only])
        await getattr(self, name)()

    # -- whom to choose ----------------------------------------------------------------------------

    async def watch_what_is_pushed(self):
        """Keeps in mind whose numbers are being written or read back; ends when it is cancelled."""
        while True:
            self._hot = [hubspot_id for (hubspot_id,) in await self.stage.run(_BEING_PUSHED)]
            await asyncio.sleep(0.15)

    def somebody(self):
        hot = [self._by_id[each] for each in self._hot if each in self._by_id]
        if hot and self.rng.random() < self.aim:
            return self.rng.choice(hot)
        return self.rng.choice(self.students)

    def a_booking(self, wanted=lambda each: each.may_be == {"Active"}):
        """One of the bookings made so far, by default one that nothing ended; None when there is none."""
        found = [each for each in self.truth.bookings.values() if wanted(each)]
        return self.rng.choice(found) if found else None

    def may_lose(self, student, credit_type):
        """How much may be taken away so that nothing is ever too little."""
        left = self.truth.balance(student, credit_type)
        return max(0, left if student.tight else left - MARGIN)

    # -- numbers typed in HubSpot ------------------------------------------------------------------

    async def type_a_number(self):
        student = self.somebody()
        types = self.rng.sample(CREDITS, self.rng.choice((1, 1, 1, 2)))

        def wanted(name, seen):
            less = self.may_lose(student, name)
            down = -self.rng.randint(1, min(less, 6)) if less and self.rng.random() < 0.5 else 0
            number = max(0, seen + (down or self.rng.randint(1, 6)))
            return f"{number}.0" if self.rng.random() < 0.05 else str(number)

        await self._type_numbers(student, types, wanted)

    async def type_what_we_push(self):
        """The very number our next write carries: by its value nobody could tell it from ours."""
        student = self.somebody()
        rows = await self.stage.run(
            "select b.credit_type, b.balance from tallybook.credit_balances b"
            " where b.contact_id = %s and b.crm_base is distinct from b.balance",
            student.contact_id,
        )
        ours = {name: balance for name, balance in rows if name in CREDITS}
        if not ours:
            return

        def wanted(name, seen):
            # What staff take away has to be there; what is too little is the business of the tight ones.
            return str(ours[name]) if seen - ours[name] <= self.may_lose(student, name) else str(seen + 1)

        await self._type_numbers(student, [self.rng.choice(list(ours))], wanted)

    async def type_no_number(self):
        student = self.somebody()
        # Emptied where zero was is zero, which only a steady student's numbers never are.
        texts = NO_NUMBERS if student.tight else (*NO_NUMBERS, "", "")
        await self._type_numbers(student, [self.rng.choice(CREDITS)], lambda *_: self.rng.choice(texts))

    async def _type_numbers(self, student, types, wanted):
        async with self._locks[student.hubspot_id]:
            for _ in range(6):
                record = await self.portal.record("contact", student.hubspot_id)
                if await self._is_typed_too_often(student, record, types):
                    return
                seen = {name: last_number(record, name) for name in types}
                typed = {name: wanted(name, seen[name]) for name in types}
                shown = {name: record["properties"].get(name) for name in types}
                try:
                    await self.portal.type("contact", student.hubspot_id, typed, expect=shown)
                except Changed:
                    continue
                raced = await self._is_being_pushed(student)
                for name in types:
                    number = readable(typed[name])
                    delta = 0 if number is None else number - seen[name]
                    what = "type no number" if number is None else "type a number"
                    self.truth.number(student, name, side="hubspot", what=what, delta=delta, raced=raced)
                return

    async def _is_typed_too_often(self, student, record, types):
        """Whether HubSpot would soon forget what we have not read: of that nobody can know the truth.

        Half of all that is typed aims at the few contacts who were being written when HubSpot went away.
        """
        [(read_until,)] = await self.stage.run(
            "select c.crm_modified_at from tallybook.contacts c where c.id = %s", student.contact_id
        )
        return any(
            sum(
                datetime.fromisoformat(each["timestamp"]) > read_until
                for each in record["history"].get(name, ())
            )
            > MOST_UNREAD
            for name in types
        )

    async def _is_being_pushed(self, student):
        rows = await self.stage.run(f"{_BEING_PUSHED} and c.id = %s", student.contact_id)
        return bool(rows)

    # -- texts, statuses, sessions typed in HubSpot ------------------------------------------------

    async def type_a_name(self):
        student = self.somebody()
        name = self.rng.choice(("firstname", "lastname"))
        await self._type_text("contact", student.hubspot_id, name, f"Name{self.rng.randrange(10**6)}")

    async def type_a_date(self):
        student = self.somebody()
        await self._type_text("contact", student.hubspot_id, "ndecc_exam_date", self._a_date())

    async def type_an_address(self):
        """Who they are changes while they book: from now on they say the new pair."""
        student = self.somebody()
        number = self.rng.randrange(10**9)
        changed = {"email": f"new{number}@example.com", "student_id": f"N{number}"}
        async with self._locks[student.hubspot_id]:
            record = await self.portal.record("contact", student.hubspot_id)
            shown = {name: record["properties"].get(name) for name in changed}
            try:
                await self.portal.type("contact", student.hubspot_id, changed, expect=shown)
            except Changed:
                return
            student.email, student.student_id = changed["email"], changed["student_id"]
            for name, value in changed.items():
                self.truth.texts["contact", student.hubspot_id, name].append(value)
            self.truth.note("type an address", student, **changed)

    async def archive_for_a_while(self):
        """Gone from HubSpot for some seconds and back: nothing of theirs changes."""
        student = self.somebody()
        async with self._locks[student.hubspot_id]:
            await self.portal.archive(student.hubspot_id, archived=True)
            await asyncio.sleep(self.rng.uniform(0.5, 8))
            await self.portal.archive(student.hubspot_id, archived=False)
            self.truth.note("archive and restore", student)

    async def type_in_a_session(self):
        known = [each for each in self.exams if each.isdigit()]
        if not known:
            return
        exam = self.rng.choice(known)
        if self.rng.random() < 0.6:
            await self._type_text("mock_exam", exam, "capacity", str(self.rng.randint(5, 40)))
        else:
            await self._type_text("mock_exam", exam, "address", f"{self.rng.randrange(10**4)} Main St")

    async def type_a_status(self):
        booking = self.a_booking()
        hubspot_id = booking and await self._hubspot_id_of(booking)
        if not hubspot_id:
            return
        name, value = self.rng.choice((("is_active", "Cancelled"), ("attendance", "Yes")))
        async with self._locks[booking.student.hubspot_id]:
            if booking.may_be == {"Active"} and await self._type_text(
                "booking", hubspot_id, name, value, noted=False
            ):
                booking.cancelled_there |= name == "is_active"
                booking.attended_there |= name == "attendance"
                self.truth.note(f"type {value}", booking.student, booking=booking.id)

    async def type_active_again(self):
        """Whether it may come back the rules decide then; who cancelled last is not known for sure."""
        booking = self.a_booking(lambda each: each.cancelled_there or each.cancelled_here)
        hubspot_id = booking and await self._hubspot_id_of(booking)
        if not hubspot_id:
            return
        async with self._locks[booking.student.hubspot_id]:
            record = await self.portal.record("booking", hubspot_id)
            if record is None or record["properties"].get("is_active") != "Cancelled":
                return
            try:
                await self.portal.type(
                    "booking", hubspot_id, {"is_active": "Active"}, expect={"is_active": "Cancelled"}
                )
            except Changed:
                return
            booking.unsure = True
            self.truth.note("type Active again", booking.student, booking=booking.id)

    async def _hubspot_id_of(self, booking):
        rows = await self.stage.run("select hubspot_id from tallybook.bookings where id = %s", booking.id)
        return rows[0][0] if rows else None

    async def _type_text(self, kind, hubspot_id, name, value, *, noted=True):
        for _ in range(6):
            record = await self.portal.record(kind, hubspot_id)
            shown = {name: record["properties"].get(name)}
            try:
                await self.portal.type(kind, hubspot_id, {name: value}, expect=shown)
            except Changed:
                continue
            if noted:
                self.truth.text(kind, hubspot_id, name, value)
            return True
        return False

    def _a_date(self):
        on = datetime.now(UTC) + timedelta(days=self.rng.randint(30, 400))
        return on.date().isoformat()

    # -- students ----------------------------------------------------------------------------------

    async def book(self):
        student = self.somebody()
        exam, kind = self.rng.choice(list(self.exams.items()))
        if not student.tight and any(self.truth.balance(student, each) <= MARGIN for each in PAYS[kind]):
            return
        async with self._locks[student.hubspot_id]:
            key = new_key()
            call = {"json": {**student.pair, "mock_exam_id": exam}, "headers": {"idempotency-key": key}}
            twice = self.rng.random() < 0.1
            answers = await asyncio.gather(
                *(self._ask("POST", "/api/bookings/create", **call) for _ in range(1 + twice))
            )
            made = [data for code, data in answers if code is None]
            if not made:
                self.truth.refused[answers[0][0]] += 1
                return
            data = made[0]
            assert all(each == data for each in made), "one key, two answers"
            paid = TOKENS[data["token_used"]]
            self.truth.promise(Promised(data["id"], student, exam, kind, paid, key))

    async def cancel(self):
        """Often one that the staff have just cancelled in HubSpot too: one credit comes back, not two."""
        typed = self.rng.random() < 0.3
        booking = self.a_booking(
            lambda each: not each.unsure and not each.cancelled_here and each.cancelled_there == typed
        )
        if booking is None:
            return
        async with self._locks[booking.student.hubspot_id]:
            if booking.unsure or booking.cancelled_here or booking.attended_there:
                return
            code, data = await self._ask(
                "DELETE",
                f"/api/bookings/{booking.id}",
                json=booking.student.pair,
                headers={"idempotency-key": new_key()},
            )
            if code is not None:
                self.truth.refused[code] += 1
                return
            assert data["credits_restored"] == 1, data
            booking.cancelled_here = True
            self.truth.note("cancel", booking.student, booking=booking.id)

    async def move(self):
        booking = self.a_booking()
        if booking is None:
            return
        to = [each for each, kind in self.exams.items() if kind == booking.mock_type and each != booking.exam]
        if not to:
            return
        exam = self.rng.choice(to)
        async with self._locks[booking.student.hubspot_id]:
            if booking.may_be != {"Active"}:
                return
            code, _ = await self._ask(
                "POST",
                f"/api/bookings/{booking.id}/move",
                json={**booking.student.pair, "mock_exam_id": exam},
                headers={"idempotency-key": new_key()},
            )
            if code is not None:
                self.truth.refused[code] += 1
                return
            booking.exam = exam
            self.truth.note("move", booking.student, booking=booking.id, exam=exam)

    async def set_a_date(self):
        student = self.somebody()
        value = self._a_date()
        async with self._locks[student.hubspot_id]:
            code, _ = await self._ask(
                "PUT", "/api/user/update-ndecc-date", json={**student.pair, "ndecc_exam_date": value}
            )
            if code is None:
                self.truth.text("contact", student.hubspot_id, "ndecc_exam_date", value)

    async def _ask(self, method, path, **call):
        """(code of the refusal or None, data). Asked again with the same key until the answer is definite."""
        deadline = asyncio.get_running_loop().time() + _RETRY_FOR_S
        doubtful = False
        while True:
            asked = time.monotonic()
            try:
                answer = await self.stage.http.request(method, path, **call)
            except httpx.TransportError:
                answer = None
            else:
                self.truth.waited_s.append(time.monotonic() - asked)
            if answer is not None:
                body = answer.json()
                if body["success"]:
                    return None, body["data"]
                code = body["error"]["code"]
                if answer.status_code < 500 and code not in {"IDEMPOTENCY_IN_PROGRESS", "RATE_LIMITED"}:
                    return code, None
                # Not known here and HubSpot does not answer: nothing was decided, then or before.
                if code in {"CRM_BUSY", "CRM_UNAVAILABLE"} and not doubtful:
                    return code, None
            doubtful = doubtful or answer is None or code == "DATABASE_UNAVAILABLE"
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"{method} {path} got no definite answer: {answer and answer.text}")
            await asyncio.sleep(0.2 + self.rng.random() * 0.3)

    # -- staff here --------------------------------------------------------------------------------

    async def grant(self):
        """Credits granted or taken away in SQL; where the commit's answer was lost, PostgreSQL is asked."""
        student, name = self.somebody(), self.rng.choice(CREDITS)
        less = self.may_lose(student, name)
        number = -self.rng.randint(1, min(less, 3)) if less and self.rng.random() < 0.4 else 0
        number = number or self.rng.randint(1, 4)
        async with self._locks[student.hubspot_id]:
            if await self._granted(student, name, number):
                self.truth.number(student, name, side="here", what="grant", delta=number)

    async def _granted(self, student, name, number):
        reason = f"proof {new_key()}"
        try:
            async with await psycopg.AsyncConnection.connect(self.stage.uri, autocommit=True) as connection:
                await connection.execute(_GRANT, (student.contact_id, name, number, reason))
        except psycopg.errors.RaiseException:
            self.truth.refused["grant"] += 1
            return False
        except psycopg.OperationalError:
            return bool(await self.stage.run(_WAS_GRANTED, reason))
        return True


_BEING_PUSHED = """
    select c.hubspot_id from tallybook.contacts c
    where (c.crm_unread or exists (
        select from tallybook.outbox o
        where o.object_type = 'contact' and o.object_id = c.id and o.leased_until > clock_timestamp()))
"""
