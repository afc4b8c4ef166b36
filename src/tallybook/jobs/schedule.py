"""Which jobs there are, by the last part of their cron addresses, and when a worker does them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from tallybook.jobs import activate_exams, expire_holds
from tallybook.jobs.lease import JobResult, report
from tallybook.jobs.pull_changes import pull_until
from tallybook.jobs.push_changes import push_until
from tallybook.jobs.reconcile import JOB as RECONCILE
from tallybook.jobs.reconcile import reconcile, reconcile_daily
from tallybook.jobs.run_mirror import run_mirror
from tallybook.jobs.send_alerts import JOB as SEND_ALERTS
from tallybook.jobs.send_alerts import send_alerts
from tallybook.jobs.worker import Loop, Periodic
from tallybook.outbound.alerts import AlertSender
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.watch_mirror import AlertLimits
from tallybook.usecases.watch_portal import watch_portal

CronJob = Callable[[float], Awaitable[Mapping[str, object]]]
"""(seconds it may take) -> {counts, duration_ms, done}."""

_RUN_S = 50.0
# No address has this name: it is what the worker calls.
_DAILY = "reconcile daily"


def cron_jobs(mirror: Mirror) -> dict[str, CronJob]:
    """The periodic jobs by the last part of their addresses."""

    def guarded(job: str, work: Callable[..., Awaitable[JobResult]]) -> CronJob:
        """A job of the mirror: one caller at a time, and only where database and portal belong together."""

        async def once(max_s: float) -> JobResult:
            await watch_portal(mirror)
            return await work(mirror, max_s=max_s)

        async def run(max_s: float) -> Mapping[str, object]:
            return await report(mirror.db, job, partial(once, max_s))

        return run

    async def activate(max_s: float) -> Mapping[str, object]:
        observe = mirror.observe
        work = partial(activate_exams.activate_exams, mirror.db, max_s=max_s, observe=observe)
        return await report(mirror.db, activate_exams.JOB, work)

    async def expire(max_s: float) -> Mapping[str, object]:
        work = partial(expire_holds.expire_holds, mirror.db, max_s=max_s)
        return await report(mirror.db, expire_holds.JOB, work)

    return {
        "activate-scheduled-exams": activate,
        "expire-holds": expire,
        "sync-supabase": guarded("sync-supabase", partial(pull_until, full=True)),
        "warm-contact-credits-cache": guarded("warm-contact-credits-cache", pull_until),
        "batch-sync-hubspot": guarded("batch-sync-hubspot", push_until),
        RECONCILE: guarded(RECONCILE, reconcile),
        _DAILY: guarded(RECONCILE, reconcile_daily),
    }


async def reconcile_now(mirror: Mirror, max_s: float, repair: bool) -> Mapping[str, object]:
    """What staff ask for; it goes on with one that is under way."""

    async def work() -> JobResult:
        await watch_portal(mirror)
        return await reconcile(mirror, max_s=max_s, repair=repair)

    return await report(mirror.db, RECONCILE, work)


def worker_loops(mirror: Mirror, *, has_hubspot: bool) -> dict[str, Loop]:
    """What a worker does all the time."""
    return {"mirror": partial(run_mirror, mirror)} if has_hubspot else {}


def worker_jobs(
    mirror: Mirror, *, has_hubspot: bool, sender: AlertSender | None, limits: AlertLimits
) -> tuple[Periodic, ...]:
    """What comes round in a worker. Each is done by one worker at a time, whoever else is told to."""
    jobs = cron_jobs(mirror)
    daily = (Periodic(RECONCILE, 300, partial(jobs[_DAILY], _RUN_S)),) if has_hubspot else ()
    alert = partial(send_alerts, mirror.db, sender, limits=limits)
    return (
        Periodic(activate_exams.JOB, 60, partial(jobs[activate_exams.JOB], _RUN_S), at_the_minute=True),
        Periodic(expire_holds.JOB, 60, partial(jobs[expire_holds.JOB], _RUN_S)),
        *daily,
        Periodic(SEND_ALERTS, 15, partial(report, mirror.db, SEND_ALERTS, alert)),
    )


def worker_loops_once(mirror: Mirror, *, has_hubspot: bool) -> tuple[Periodic, ...]:
    """What a worker does all the time, once: what waits is pulled and pushed."""
    names = ("warm-contact-credits-cache", "batch-sync-hubspot") if has_hubspot else ()
    jobs = cron_jobs(mirror)
    return tuple(Periodic(name, 0, partial(jobs[name], _RUN_S)) for name in names)
