"""Three accounts of the same thing compared: what was promised, what PostgreSQL has, what HubSpot shows."""

from collections import Counter
from dataclasses import dataclass, field

from proof.truth import CREDITS, readable

_BALANCES = """
    select c.hubspot_id, b.credit_type, b.balance
    from tallybook.credit_balances b join tallybook.contacts c on c.id = b.contact_id
    where c.merged_into is null and c.hubspot_id is not null
"""
_CONFLICTS = """
    select k.object_type, k.object_id::text, c.hubspot_id, k.field, k.kind, k.details, k.freezes,
        k.resolved_at is null
    from tallybook.sync_conflicts k
    left join tallybook.contacts c on k.object_type = 'contact' and c.id = k.object_id
    order by k.id
"""
_BOOKINGS = """
    select b.id::text, b.hubspot_id, c.hubspot_id, e.hubspot_id, e.id::text, b.status, b.token_used,
        b.attendance, b.booking_id
    from tallybook.bookings b
    join tallybook.contacts c on c.id = b.contact_id
    join tallybook.mock_exams e on e.id = b.mock_exam_id
"""
_SPENT = """
    select e.booking_id::text, c.hubspot_id, e.credit_type, sum(e.delta)::integer
    from tallybook.credit_entries e join tallybook.contacts c on c.id = e.contact_id
    where e.booking_id is not null group by 1, 2, 3
"""
_SESSIONS = "select id::text, hubspot_id, total_bookings, capacity, address from tallybook.mock_exams"
_CONTACTS = """
    select hubspot_id, firstname, lastname, ndecc_exam_on::text, email, student_id
    from tallybook.contacts where merged_into is null and hubspot_id is not null
"""
_DEAD = """
    select 'outbox', object_type, object_id::text, last_error from tallybook.outbox where dead_at is not null
    union all
    select 'inbox', object_type, hubspot_id, last_error from tallybook.inbox where dead_at is not null
"""
_TEXTS = ("firstname", "lastname", "ndecc_exam_date", "email", "student_id")
_OF_BOOKINGS = ("booking_id", "is_active", "token_used", "attendance", "tallybook_id")


@dataclass(frozen=True)
class Conflict:
    """Something a person has to look at, or had to."""

    kind_of: str
    object_id: str
    hubspot_id: str | None
    field: str
    kind: str
    details: dict
    freezes: bool
    is_open: bool


@dataclass(frozen=True)
class Stored:
    """A booking as PostgreSQL has it."""

    id: str
    hubspot_id: str | None
    contact: str
    exam_there: str | None
    exam_here: str
    status: str
    token: str
    attendance: str | None
    text: str


@dataclass
class Audit:
    """What was compared and what was wrong; `wrong` is empty when nothing was lost and nothing invented."""

    stage: object
    portal: object
    truth: object
    students: list
    compared: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: Counter = field(default_factory=Counter)
    invented: Counter = field(default_factory=Counter)
    suspects: set[str] = field(default_factory=set)
    conflicts: list[Conflict] = field(default_factory=list)
    stored: dict[str, Stored] = field(default_factory=dict)

    def find(self, text, *, contact=None):
        """Something is wrong."""
        self.wrong.append(text)
        if contact:
            self.suspects.add(contact)

    async def compare(self):
        """Compares everything once nothing waits any more."""
        self.conflicts = [Conflict(*row) for row in await self.stage.run(_CONFLICTS)]
        self.stored = {row[0]: Stored(*row) for row in await self.stage.run(_BOOKINGS)}
        await self._compare_numbers()
        await self._compare_bookings()
        await self._compare_sessions()
        await self._compare_texts()
        for where, kind, name, error in await self.stage.run(_DEAD):
            self.find(f"a dead letter in the {where}: {kind} {name}: {error}")
        for said in self.stage.died:
            self.find(f"a worker that nobody killed {said}")
        for each in self.conflicts:
            if each.kind == "gap":
                self.find(f"HubSpot kept too little history: {each}", contact=each.hubspot_id)
        return self

    def count_conflicts(self):
        """How many of each kind are open or closed."""
        return Counter(
            f"{each.kind_of} {each.kind} {'open' if each.is_open else 'closed'}" for each in self.conflicts
        )

    def _frozen(self, kind_of):
        """(our id, field) that wait for a person."""
        return {
            (each.object_id, each.field)
            for each in self.conflicts
            if each.kind_of == kind_of and each.freezes and each.is_open
        }

    # -- numbers -----------------------------------------------------------------------------------

    async def _compare_numbers(self):
        here = {(who, name): balance for who, name, balance in await self.stage.run(_BALANCES)}
        there = await self.portal.everything("contact", CREDITS)
        spent = await self._spent_on_unsure_bookings()
        not_taken = Counter()
        for each in self.conflicts:
            if each.kind == "below_zero":
                not_taken[each.hubspot_id, each.field] += int(each.details["remainder"])
        frozen = self._frozen("contact")
        for student in self.students:
            for name in CREDITS:
                key = student.hubspot_id, name
                must = self._promised_number(key) - spent[key] + not_taken[key]
                shown = there[student.hubspot_id]["properties"].get(name)
                self._compare_number(key, must=must, ours=here.get(key), shown=shown)
                if not student.tight and not_taken[key]:
                    self.find(f"{key}: {not_taken[key]} were there and not taken away", contact=key[0])
                if (student.contact_id, name) in frozen:
                    self.find(f"{key}: is frozen", contact=key[0])

    async def _spent_on_unsure_bookings(self):
        unsure = {each.id for each in self.truth.bookings.values() if each.unsure}
        spent = Counter()
        for booking, who, name, total in await self.stage.run(_SPENT):
            if booking in unsure:
                spent[who, name] -= total
        return spent

    def _promised_number(self, key):
        who, name = key
        typed = sum(each.delta for each in self.truth.numbers[key])
        sure = [each for each in self.truth.of(who) if not each.unsure and each.paid == name]
        return self.truth.first[key] + typed - sum(each.may_be != {"Cancelled"} for each in sure)

    def _compare_number(self, key, *, must, ours, shown):
        self.compared["balances"] += 1
        self.compared["edits of numbers"] += len(self.truth.numbers[key])
        theirs = 0 if shown in {None, ""} else readable(shown)
        # Nothing is stored for a number HubSpot never had; then it must be 0.
        if (ours or 0) != must:
            deltas = {each.delta for each in self.truth.numbers[key]}
            # Where leaving out an edit explains the difference, that edit was lost.
            side = self.lost if must - (ours or 0) in deltas - {0} else self.invented
            side["credits"] += abs(must - (ours or 0))
            self.find(f"{key}: must be {must}, here {ours}, HubSpot {shown!r}", contact=key[0])
        elif theirs != must:
            self.find(f"{key}: must be {must}, here {ours}, but HubSpot {shown!r}", contact=key[0])

    # -- bookings ----------------------------------------------------------------------------------

    async def _compare_bookings(self):
        there = await self.portal.everything("booking", _OF_BOOKINGS)
        refused = {object_id for object_id, _ in self._frozen("booking")}
        for promised in self.truth.bookings.values():
            self.compared["bookings"] += 1
            stored = self.stored.get(promised.id)
            if stored is None:
                self.lost["bookings"] += 1
                self.find(f"booking {promised.id} was promised and is not there")
                continue
            if stored.status not in promised.may_be:
                self.find(f"{stored} must be {promised.may_be}", contact=stored.contact)
            if promised.exam not in {stored.exam_here, stored.exam_there}:
                self.find(f"{stored} must be in {promised.exam}", contact=stored.contact)
            await self._compare_booking(stored, there, refused=stored.id in refused)
        for extra in self.stored.keys() - self.truth.bookings.keys():
            self.invented["bookings"] += 1
            self.find(f"never promised: {self.stored[extra]}", contact=self.stored[extra].contact)
        for extra in there.keys() - {each.hubspot_id for each in self.stored.values()}:
            self.invented["bookings in HubSpot"] += 1
            self.find(f"HubSpot has a booking nobody made: {extra} {there[extra]['properties']}")

    async def _compare_booking(self, stored, there, *, refused):
        record = there.get(stored.hubspot_id)
        if record is None:
            self.lost["bookings in HubSpot"] += 1
            self.find(f"not in HubSpot: {stored}", contact=stored.contact)
            return
        ours = (stored.text, stored.status, stored.token, stored.attendance, stored.id)
        differ = {
            name: (value, record["properties"].get(name))
            for name, value in zip(_OF_BOOKINGS, ours, strict=True)
            if (record["properties"].get(name) or None) != value
        }
        if differ and not refused:
            self.find(f"{stored} differs in HubSpot: {differ}", contact=stored.contact)
        linked = (await self.portal.record("booking", stored.hubspot_id))["associations"]
        for kind, wanted in (("contacts", stored.contact), ("mock_exams", stored.exam_there)):
            self.compared["associations"] += 1
            ids = [each["id"] for each in linked.get(kind, [])]
            if ids != [wanted]:
                self.find(f"{stored} is associated with {kind} {ids}", contact=stored.contact)

    # -- sessions and texts ------------------------------------------------------------------------

    async def _compare_sessions(self):
        there = await self.portal.everything("mock_exam", ("total_bookings", "capacity", "address"))
        live = Counter(each.exam_here for each in self.stored.values() if each.status != "Cancelled")
        frozen = self._frozen("mock_exam")
        for exam, hubspot_id, seats, capacity, address in await self.stage.run(_SESSIONS):
            self.compared["sessions"] += 1
            if seats != live[exam]:
                self.find(f"session {exam} has {seats} seats taken by {live[exam]} live bookings")
            if hubspot_id not in there:
                self.lost["sessions in HubSpot"] += 1
                self.find(f"session {exam} is not in HubSpot")
                continue
            shown = there[hubspot_id]["properties"]
            ours = {"total_bookings": str(seats), "capacity": str(capacity), "address": address}
            for name, value in ours.items():
                if (exam, name) not in frozen:
                    self._compare_text("mock_exam", hubspot_id, name, ours=value, shown=shown.get(name))

    async def _compare_texts(self):
        there = await self.portal.everything("contact", _TEXTS)
        for hubspot_id, *ours in await self.stage.run(_CONTACTS):
            shown = there[hubspot_id]["properties"]
            for name, value in zip(_TEXTS, ours, strict=True):
                self._compare_text("contact", hubspot_id, name, ours=value, shown=shown.get(name))

    def _compare_text(self, kind, hubspot_id, name, *, ours, shown):
        self.compared["texts"] += 1
        contact = hubspot_id if kind == "contact" else None
        if (shown or None) != ours:
            self.find(f"{name} of {kind} {hubspot_id}: here {ours!r}, HubSpot {shown!r}", contact=contact)
        typed = self.truth.texts.get((kind, hubspot_id, name))
        # A date both sides may set: the newer one wins, and which of the last two that was only they know.
        last = typed and (typed[-2:] if name == "ndecc_exam_date" else typed[-1:])
        if last and ours not in last:
            self.lost["texts"] += 1
            self.find(
                f"{name} of {kind} {hubspot_id}: {ours!r}, typed last was {typed[-1]!r}", contact=contact
            )
