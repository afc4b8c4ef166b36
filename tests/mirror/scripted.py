"""A scripted HubSpot for many contacts at once, and the truth about their numbers.

Each contact is a run of its own: local changes, people's edits, pushes that land at once, late, or never,
reads that arrive late, histories that lag. What is real is the database and what decides there.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

from support.factories import CATALOG, MIRRORED
from tallybook.domain.mirror import Outcome
from tallybook.hubspot.fields import parse_contact
from tallybook.hubspot.records import HistoryEntry, Record
from tallybook.usecases.absorb_contacts import absorb_contacts

EDITED = MIRRORED[:2]
STAMP = "tallybook_sync"
START = datetime(2027, 1, 1, tzinfo=UTC)
OURS = ("INTEGRATION", "4711")
ANNA = ("CRM_UI", "userId:7")


@dataclass
class Write:
    """One of our requests on its way."""

    lands_at_step: int | None
    numbers: dict[str, int]
    stamp: str


@dataclass
class Run:
    """One contact in HubSpot, and what its numbers must be in the end."""

    hubspot_id: str
    contact_id: object = None
    texts: dict = field(default_factory=dict)
    entries: dict = field(default_factory=lambda: defaultdict(list))
    updated_ms: int = 0
    readable: dict = field(default_factory=dict)
    truth: dict = field(default_factory=dict)
    writes: list = field(default_factory=list)
    unread: bool = False
    late_answers: list = field(default_factory=list)
    pushed: dict = field(default_factory=lambda: defaultdict(set))

    def put(self, texts, at_ms, source):
        """A request: one time for everything it changes, and no entry for what it leaves as it was."""
        for name, text in texts.items():
            if self.texts.get(name) != text:
                self.texts[name] = text
                self.entries[name].append((at_ms, text, source))
                self.updated_ms = at_ms

    def type(self, name, text, at_ms, source=ANNA):
        """Somebody types over a number; the difference to what was shown has to reach the ledger."""
        self.put({name: text}, at_ms, source)
        if text.isdigit():
            self.truth[name] += int(text) - self.readable[name]
            self.readable[name] = int(text)

    def land(self, write, at_ms):
        """A request of ours arrives."""
        numbers = {name: str(number) for name, number in write.numbers.items()}
        self.put(numbers | {STAMP: write.stamp}, at_ms, OURS)
        self.readable.update(write.numbers)

    def show(self, *, history=False, until_ms=None, limit=20):
        """The record as a read answers it at this moment; with histories up to a time."""
        shown = None
        if history:
            shown = {
                name: tuple(
                    HistoryEntry(
                        timestamp=START + timedelta(milliseconds=at_ms),
                        value=text,
                        source_type=source[0],
                        source_id=source[1],
                    )
                    for at_ms, text, source in reversed(self.entries[name][-limit:])
                    if until_ms is None or at_ms <= until_ms
                )
                for name in (*MIRRORED, STAMP)
            }
        return Record(
            id=self.hubspot_id,
            updated_at=START + timedelta(milliseconds=self.updated_ms),
            properties=dict.fromkeys((*MIRRORED, STAMP)) | self.texts,
            properties_with_history=shown,
        )


class Script:
    """So many runs under one random seed, driven step by step against a real database.

    `rule` is how own writes are told from edits: by `history`, as it has to be; or wrongly by `value`; or not
    at all, by `difference` to a base that is set when a write is confirmed.
    """

    def __init__(self, db, owner, *, seed, runs, rule="history", limit=20):
        self.db, self.owner, self.rule, self.limit = db, owner, rule, limit
        self.random = Random(seed)
        self.runs = [Run(str(50_000 + n)) for n in range(runs)]
        self.by_id = {run.hubspot_id: run for run in self.runs}
        self.now_ms = 0
        self.step = 0
        self.outcomes = defaultdict(int)

    def tick(self):
        """Mostly a later moment; some things happen within one millisecond."""
        self.now_ms += self.random.choice((0, 1, 1, 5, 40))
        return self.now_ms

    async def meet(self):
        """Everybody is met with the numbers HubSpot has."""
        for run in self.runs:
            for name in MIRRORED:
                number = self.random.randrange(200, 300) if name in EDITED else 0
                run.readable[name] = run.truth[name] = number
                run.put({name: str(number)}, self.now_ms, ANNA)
        absorbed = await self.absorb([(run, run.show()) for run in self.runs])
        for run in self.runs:
            run.contact_id = absorbed[run.hubspot_id].contact_id

    async def absorb(self, answers):
        """Merges the answers, at most one per contact at a time; what became of each."""
        parsed = [self._parsed(run, record) for run, record in answers]
        told = {}
        for start in range(0, len(parsed), 100):
            told |= await absorb_contacts(self.db, parsed[start : start + 100], first_reason="crm_link")
        for each in told.values():
            self.outcomes[each.outcome.value] += 1
        return told

    def _parsed(self, run, record):
        contact = parse_contact(record, CATALOG)
        if self.rule == "difference":
            return replace(contact, stamp=None, history=None)
        if self.rule == "value" and contact.history is not None:
            balances = {
                name: tuple(
                    replace(each, own_rank=1 if each.number in run.pushed[name] else None) for each in entries
                )
                for name, entries in contact.history.balances.items()
            }
            return replace(contact, history=replace(contact.history, balances=balances))
        return contact

    async def go(self, steps):
        """Random events; then everything is left alone until both sides agree."""
        await self.meet()
        for _ in range(steps):
            self.step += 1
            await self._do_step()
        await self._settle()

    async def _do_step(self):
        chosen = defaultdict(list)
        for run in self.runs:
            self._land_due(run)
            actions = ["local", "edit", "edit", "push", "pull"] + ["read_back"] * 2 * run.unread
            chosen[self.random.choice(actions)].append(run)
        await self._change_here(chosen["local"])
        for run in chosen["edit"]:
            self._edit(run)
        await self._push([run for run in chosen["push"] if not run.unread])
        await self._pull(chosen["pull"])
        await self._read_back(chosen["read_back"])

    def _land_due(self, run):
        for write in [each for each in run.writes if each.lands_at_step == self.step]:
            run.land(write, self.tick())
            run.writes.remove(write)

    async def _change_here(self, runs):
        for run in runs:
            name, delta = self.random.choice(EDITED), self.random.choice((-2, -1, -1, 1, 3))
            run.truth[name] += delta
            await self.owner.execute(
                "insert into tallybook.credit_entries (contact_id, credit_type, delta, reason, actor)"
                " values (%s, %s, %s, 'grant', 'cli:test')",
                (run.contact_id, name, delta),
            )

    def _edit(self, run):
        name = self.random.choice(EDITED)
        number = run.readable[name]
        # Also exactly what we are about to push, or have pushed before, and what is no number at all.
        on_its_way = [write.numbers[name] for write in run.writes if name in write.numbers]
        choices = [str(max(0, number + self.random.randrange(-4, 5))) for _ in range(6)]
        choices += [str(each) for each in (*on_its_way, *sorted(run.pushed[name])[-1:])]
        source = self.random.choice((ANNA, ANNA, OURS))
        text = self.random.choice((*choices, *choices, "lots", ""))
        run.type(name, text, self.tick(), source)

    async def _push(self, runs):
        rows = await self._fetch(
            "update tallybook.contacts c set write_no = c.write_no + 1, crm_unread = true"
            " where c.id = any (%s) and tallybook.dirty_balances(c.id) <> '{}'"
            " returning c.hubspot_id, c.write_no, tallybook.dirty_balances(c.id)",
            [run.contact_id for run in runs],
        )
        for hubspot_id, write_no, numbers in rows:
            run = self.by_id[hubspot_id]
            named = "".join(f" {name}={number}" for name, number in sorted(numbers.items()))
            delay = self.random.choice((0, 0, 0, 0, 1, 2, 7, 12, None))
            write = Write(None if delay is None else self.step + delay, numbers, f"{write_no}{named}")
            for name, number in numbers.items():
                run.pushed[name].add(number)
            run.unread = True
            if delay == 0:
                run.land(write, self.tick())
                if self.rule == "difference":
                    await self._confirm(run, write)
            elif delay is not None:
                run.writes.append(write)

    async def _confirm(self, run, write):
        for name, number in write.numbers.items():
            await self.owner.execute(
                "update tallybook.credit_balances set crm_base = %s"
                " where contact_id = %s and credit_type = %s",
                (number, run.contact_id, name),
            )
        run.unread = False

    async def _pull(self, runs):
        """Answers are read now and merged now or later; those of before come in now."""
        due = []
        for run in runs:
            run.late_answers.append(run.show(history=self.random.random() < 0.3, limit=self.limit))
            self.random.shuffle(run.late_answers)
            if self.random.random() < 0.7:
                due.append((run, run.late_answers.pop()))
        await self.absorb(due)

    async def _read_back(self, runs):
        answers = []
        for run in runs:
            lag_ms = self.random.choice((0, 0, 0, 4000))
            until_ms = self.now_ms - lag_ms if lag_ms else None
            answers.append((run, run.show(history=True, until_ms=until_ms, limit=self.limit)))
        for hubspot_id, each in (await self.absorb(answers)).items():
            self.by_id[hubspot_id].unread = each.outcome not in (Outcome.ABSORBED, Outcome.OLDER)

    async def _settle(self):
        for _ in range(40):
            self.step += 1
            for run in self.runs:
                for write in run.writes:
                    write.lands_at_step = self.step
                self._land_due(run)
            await self._read_back(self.runs)
            await self._push(self.runs)
            rows = await self._fetch(
                "select c.id from tallybook.contacts c where tallybook.dirty_balances(c.id) <> '{}'"
            )
            if not rows and not any(run.unread or run.writes for run in self.runs):
                return

    async def wrong(self):
        """How many numbers are not the sum of all changes, here or in HubSpot; frozen ones do not count."""
        stored = defaultdict(dict)
        for contact_id, name, balance in await self._fetch(
            "select contact_id, credit_type, balance from tallybook.credit_balances"
        ):
            stored[contact_id][name] = balance
        frozen = set(await self._fetch("select object_id, field from tallybook.sync_conflicts where freezes"))
        return sum(
            (run.truth[name], str(run.truth[name])) != (stored[run.contact_id][name], run.texts[name])
            for run in self.runs
            for name in EDITED
            if (run.contact_id, name) not in frozen
        )

    async def frozen(self):
        """How many numbers wait for a person, because HubSpot has forgotten what happened."""
        ((count,),) = await self._fetch("select count(*) from tallybook.sync_conflicts where freezes")
        return count

    async def _fetch(self, query, *params):
        return await (await self.owner.execute(query, params or None)).fetchall()
