"""One run of the proof: set the stage, let everybody edit while things go wrong, settle, compare."""

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from proof.audit import Audit
from proof.breaking import break_merge
from proof.chances import CHANCES
from proof.people import People
from proof.portal import Portal
from proof.settle import NeverSettled, settled
from proof.stage import CLIENT_SECRET
from proof.trouble import Trouble
from proof.truth import CREDITS, Student, Truth, readable

KINDS = ("Situational Judgment", "Clinical Skills", "Mini-mock", "Mock Discussion")
FIRST_STUDENT = 1_599_000


@dataclass
class Plan:
    """How much is done, and how badly things go. Seconds are means; 0 is never."""

    edits: int = 10_000
    contacts: int = 200
    sessions: int = 40
    seed: int = 1
    editors: int = 10
    per_s: float = 25.0
    aim: float = 0.5
    tight: float = 0.15
    only: tuple[str, ...] = tuple(CHANCES)
    broken: str | None = None
    latency_ms: int = 250
    search_lag_s: float = 2.0
    history_lag_ms: int = 100
    stamp_skew_ms: int = 0
    drop: float = 0.2
    duplicate: float = 0.2
    fault_every_s: float = 1.0
    kill_worker_every_s: float = 12.0
    kill_server_every_s: float = 45.0
    lose_leases_every_s: float = 20.0
    cron_every_s: float = 15.0
    kill_postgres_after: tuple[float, ...] = ()
    away_s: float = 0.0
    settle_s: float = 600.0


@dataclass
class Result:
    """What a run found."""

    truth: Truth
    audit: Audit
    editing_s: float
    settling_s: float
    trouble: Counter
    killed: dict[str, int]
    calls: dict[str, object]
    verified: str = ""
    mirrored: str = ""

    @property
    def clean(self):
        return not self.audit.wrong


async def make_portal(portal, plan):
    """Sessions of all types on days of their own, and balances from which nothing soon runs out."""
    rng = random.Random(plan.seed)
    today = datetime.now(UTC).date()
    for number in range(plan.sessions):
        on = today + timedelta(days=20 + number // 2)
        starts = datetime(on.year, on.month, on.day, 13 + 5 * (number % 2), tzinfo=UTC)
        await portal.create(
            "mock_exam",
            {
                "mock_type": KINDS[(number // 2 + number) % 4],
                "exam_date": on.isoformat(),
                "start_time": str(round(starts.timestamp() * 1000)),
                "end_time": str(round((starts + timedelta(hours=2)).timestamp() * 1000)),
                "location": "Mississauga",
                "address": "1 Main St",
                "capacity": str(rng.choice((6, 12, 20, 30))),
                "total_bookings": "0",
                "is_active": "true",
            },
        )
    contacts = await portal.everything("contact", CREDITS)
    for hubspot_id in contacts:
        if not is_tight(hubspot_id, plan):
            numbers = {name: str(rng.randint(30, 60)) for name in CREDITS}
            await portal.type("contact", hubspot_id, numbers, expect={})


def sessions_made_here(plan):
    """What `tallybook exam create` is told: HubSpot does not know these at first."""
    today = datetime.now(UTC).date()
    return [
        (
            f"--type={kind}",
            f"--date={today + timedelta(days=60 + number)}",
            *("--start=09:00", "--end=11:00", "--location=Online", "--capacity=25", "--address=2 Side St"),
        )
        for number, kind in enumerate((KINDS * 2)[: plan.sessions // 5])
    ]


def is_tight(hubspot_id, plan):
    """Whether this contact keeps the few credits of the seed."""
    return random.Random(f"{plan.seed} {hubspot_id}").random() < plan.tight


async def open_books(stage, portal, plan, truth):
    """What there is at the beginning: the students, their credits as HubSpot shows them, the sessions."""
    ids = await stage.run(
        "select hubspot_id, id::text, student_id, email from tallybook.contacts where hubspot_id is not null"
    )
    students = [Student(*row, is_tight(row[0], plan)) for row in ids]
    shown = await portal.everything("contact", CREDITS)
    for student in students:
        for name in CREDITS:
            text = shown[student.hubspot_id]["properties"].get(name)
            truth.first[student.hubspot_id, name] = readable(text) or 0
    rows = await stage.run("select coalesce(hubspot_id, id::text), mock_type from tallybook.mock_exams")
    return students, dict(rows)


async def play(stage, plan, *, say=lambda _: None, log=None):
    """The whole run; the stage has a database and a portal with contacts. Gives the Result."""
    truth = Truth(log=log)
    portal = Portal.at(stage.simulator.url)
    try:
        await make_portal(portal, plan)
        await stage.begin(sessions=sessions_made_here(plan))
        if plan.broken:
            await break_merge(stage, plan.broken)
        students, exams = await open_books(stage, portal, plan, truth)
        say(f"{len(students)} contacts, {len(exams)} sessions, {len(stage.workers)} workers: off they go")
        await portal.door(
            "settings",
            latency_ms=plan.latency_ms,
            search_lag_s=plan.search_lag_s,
            history_lag_ms=plan.history_lag_ms,
            stamp_skew_ms=plan.stamp_skew_ms,
        )
        if plan.stamp_skew_ms:
            # As doctor would find after a first write, which would be one invented edit.
            known = await stage.run(
                "update tallybook.sync_state"
                " set value = value || jsonb_build_object('stamps_apart_ms', %s::integer)"
                " where name = 'portal' returning 1",
                plan.stamp_skew_ms,
            )
            assert known, "the import did not bind the portal"
        await portal.door(
            "webhooks",
            url=stage.webhook_url,
            secret=CLIENT_SECRET,
            drop=plan.drop,
            duplicate=plan.duplicate,
            shuffle=True,
        )
        people = People(stage, portal, truth, students, exams, random.Random(plan.seed), plan.aim, plan.only)
        trouble = Trouble(
            stage,
            portal,
            random.Random(plan.seed + 1),
            fault_every_s=plan.fault_every_s,
            kill_worker_every_s=plan.kill_worker_every_s,
            kill_server_every_s=plan.kill_server_every_s,
            lose_leases_every_s=plan.lose_leases_every_s,
            cron_every_s=plan.cron_every_s,
            kill_postgres_after=plan.kill_postgres_after,
        )
        began = time.monotonic()
        await _edit_in_trouble(people, trouble, plan, say)
        editing_s = time.monotonic() - began
        say(f"{truth.edits} edits in {editing_s:.0f} s, race rate {truth.race_rate():.0%}; now settling")
        await portal.mend()
        found = Audit(stage, portal, truth, students)
        began = time.monotonic()
        # Those of workers killed just now; the minute need not be waited for.
        await stage.end_leases()
        try:
            await settled(stage, portal, within_s=plan.settle_s, say=say)
        except NeverSettled as stuck:
            found.find(f"never settled: {stuck}")
        settling_s = time.monotonic() - began
        await found.compare()
        return Result(truth, found, editing_s, settling_s, trouble.done, stage.killed, await portal.stats())
    finally:
        await portal.close()


async def _edit_in_trouble(people, trouble, plan, say):
    """Everybody edits until there are enough edits; then the trouble ends."""
    background = [
        asyncio.create_task(trouble.make()),
        asyncio.create_task(people.watch_what_is_pushed()),
    ]
    away = asyncio.create_task(_go_away(trouble, plan))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.editors):
                group.create_task(_edit_on(people, plan, background))
            group.create_task(_tell(people, plan, say))
        await away
    finally:
        for each in (*background, away):
            each.cancel()
        for each in (*background, away):
            with suppress(asyncio.CancelledError):
                await each


async def _go_away(trouble, plan):
    if plan.away_s:
        await asyncio.sleep(20)
        await trouble.hubspot_away(plan.away_s)


async def _edit_on(people, plan, background):
    while people.truth.edits < plan.edits:
        for each in background:
            if each.done():
                each.result()
        began = time.monotonic()
        await people.edit()
        pace_s = plan.editors / plan.per_s * people.rng.uniform(0.5, 1.5)
        await asyncio.sleep(max(0.0, pace_s - (time.monotonic() - began)))


async def _tell(people, plan, say):
    told = time.monotonic()
    while people.truth.edits < plan.edits:
        await asyncio.sleep(0.5)
        if time.monotonic() - told > 15:
            told = time.monotonic()
            say(f"{people.truth.edits} of {plan.edits} edits, race rate {people.truth.race_rate():.0%}")
