"""Settings to database, HubSpot client and application: the one place that knows every part."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID

import structlog

from tallybook.api.logs import configure_logs
from tallybook.domain.call_limits import CallLimit, CallSlot
from tallybook.domain.catalog import Catalog, default_catalog_text, parse_catalog
from tallybook.domain.errors import DatabaseUnavailable, SetupError, TallybookError
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import (
    CallBudget,
    CallKind,
    CallMade,
    LocalCallBudget,
    UnlimitedBudget,
)
from tallybook.hubspot.client import HubSpotClient
from tallybook.hubspot.connection import HubSpotConnection
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
from tallybook.outbound.mail import Mailer, MailSettings
from tallybook.postgres.call_budget import PostgresCallBudget
from tallybook.postgres.pool import Database
from tallybook.settings import Settings, load_settings
from tallybook.usecases.check_readiness import (
    Readiness,
    check_readiness,
    demand_readiness,
    demand_schema,
)
from tallybook.usecases.credits_cache import EVERYBODY, CreditsCache, changed_contact
from tallybook.usecases.find_student import Students
from tallybook.usecases.keys import find_key
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.record_crm_calls import record_crm_calls
from tallybook.usecases.refresh_contact import refresh_contact
from tallybook.usecases.sign_in_staff import admit_staff
from tallybook.usecases.verify_staff import verify_staff
from tallybook.usecases.watch_mirror import AlertLimits
from tallybook.usecases.watch_portal import watch_portal

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from tallybook.api.deps import ApiConfig, CronJob
    from tallybook.outbound.changes import ChangeBus

SHARES: Mapping[CallKind, float] = {
    CallKind.MISS: 1.0,
    CallKind.UNSIGNED_MISS: 0.30,
    CallKind.IMPORT: 0.95,
    CallKind.PUSH: 0.90,
    CallKind.PULL: 0.70,
    CallKind.RECONCILE: 0.40,
}
"""Up to which part of the limit each kind of call may fill it (mirror.md 2)."""

SEARCH_SHARES: Mapping[CallKind, float] = {**SHARES, CallKind.PULL: 0.5}
"""The same for searches: asking what has changed leaves half of them to others."""

_TELL_CALLS_EVERY_S = 5.0
_RUN_S = 50.0
# No address has this name: it is what the worker calls.
_DAILY = "reconcile daily"

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def release() -> str:
    """The version of this release."""
    return version("tallybook")


@dataclass(slots=True)
class _KindCounts:
    calls: int = 0
    throttled: int = 0


@dataclass(slots=True)
class CrmCallCounts:
    """How often HubSpot was called, by kind, since the start of this process; an observer of the client."""

    by_kind: dict[str, _KindCounts] = field(
        default_factory=lambda: {kind.value: _KindCounts() for kind in CallKind}
    )
    daily_remaining: int | None = None
    _told: dict[str, tuple[int, int]] = field(default_factory=dict)
    _telling: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __call__(self, call: CallMade) -> None:
        """Counts one call."""
        counts = self.by_kind[call.kind.value]
        counts.calls += 1
        counts.throttled += call.status == 429
        if call.daily_remaining is not None:
            self.daily_remaining = call.daily_remaining

    async def tell(self, db: Database) -> None:
        """Adds the calls since the last time to those of all processes. Raises DatabaseUnavailable."""
        async with self._telling:
            now = {kind: (counts.calls, counts.throttled) for kind, counts in self.by_kind.items()}
            told = {kind: self._told.get(kind, (0, 0)) for kind in now}
            news = {
                kind: (calls - told[kind][0], throttled - told[kind][1])
                for kind, (calls, throttled) in now.items()
                if calls > told[kind][0]
            }
            await record_crm_calls(db, news)
            self._told = now


class SharedBudget:
    """The budget all processes share in PostgreSQL; while that is away, this process's own part of it."""

    def __init__(self, shared: PostgresCallBudget, local: LocalCallBudget) -> None:
        self._shared = shared
        self._local = local

    @asynccontextmanager
    async def slot(self, kind: CallKind, *, search: bool = False, wait_s: float) -> AsyncIterator[CallSlot]:
        """A slot for one call. Raises CrmBusy."""
        async with AsyncExitStack() as held:
            try:
                slot = await held.enter_async_context(self._shared.slot(kind, search=search, wait_s=wait_s))
            except DatabaseUnavailable:
                slot = await held.enter_async_context(self._local.slot(kind, search=search, wait_s=wait_s))
            yield slot


class _NoHubSpot:
    """The budget of an installation without a HubSpot token: no call leaves."""

    def slot(
        self, kind: CallKind, *, search: bool = False, wait_s: float
    ) -> AbstractAsyncContextManager[CallSlot]:
        del kind, search, wait_s
        raise SetupError(
            "HS_PRIVATE_APP_TOKEN is not set.", hint="Without it only stored students are known."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything a command or a server works with. Nothing is connected until it is used."""

    settings: Settings
    catalog: Catalog
    db: Database
    hubspot: HubSpotClient
    students: Students
    crm_calls: CrmCallCounts
    credits_cache: CreditsCache | None = None
    changes: ChangeBus | None = None

    @property
    def mirror(self) -> Mirror:
        """Both sides, for what keeps them in step."""
        return Mirror(
            db=self.db,
            client=self.hubspot,
            catalog=self.catalog,
            time_zone=self.settings.tallybook_time_zone,
            observe=self.settings.observes,
        )

    async def close(self) -> None:
        """Closes all connections."""
        if self.changes is not None:
            await self.changes.aclose()
        await self.hubspot.aclose()
        await self.db.close()

    async def demand_schema(self) -> None:
        """Nothing when the database has our schema. Raises SetupError."""
        await demand_schema(self.db, release=release())

    async def demand_readiness(self) -> None:
        """Nothing when the database has our schema and catalog. Raises SetupError."""
        await demand_readiness(self.db, self.catalog, release=release())


def read_catalog(settings: Settings) -> Catalog:
    """The catalog of `TALLYBOOK_CATALOG`, else the packaged one. Raises SetupError with file and line."""
    path = settings.tallybook_catalog
    if path is None:
        text, name = default_catalog_text(), "catalog.toml"
    else:
        name = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise SetupError(
                f"the catalog {name} cannot be read: {reason}", hint="Check TALLYBOOK_CATALOG."
            ) from error
    return parse_catalog(text, file=name, cost_overrides=settings.cost_overrides)


def assemble(settings: Settings, *, pool_size: int | None = None) -> Parts:
    """The parts these settings describe. Raises SetupError."""
    catalog = read_catalog(settings)
    db = Database(
        settings.needed("DATABASE_URL"),
        size=pool_size or settings.tallybook_pool_size,
        transaction_pooler=settings.tallybook_pooler == "transaction",
    )
    connection = _connection(settings)
    counts = CrmCallCounts()
    hubspot = HubSpotClient(
        connection, budget=_budget(settings, db, connection.answer_timeout_s), observer=counts
    )
    cache, changes = _display_cache(settings, db)
    return Parts(
        settings=settings,
        catalog=catalog,
        db=db,
        hubspot=hubspot,
        students=Students(hubspot, db, catalog),
        crm_calls=counts,
        credits_cache=cache,
        changes=changes,
    )


def _display_cache(settings: Settings, db: Database) -> tuple[CreditsCache | None, ChangeBus | None]:
    """What shows credits without asking the database, where that was asked for, and what keeps it fresh."""
    if settings.credits_cache_ttl_s <= 0:
        return None, None
    cache, changes = CreditsCache(settings.credits_cache_ttl_s), None
    redis_url = settings.text("REDIS_URL")
    if redis_url is not None:
        # Only those who use it need the library.
        from tallybook.outbound.changes import ChangeBus  # noqa: PLC0415

        changes = ChangeBus(redis_url)

    def answered(query: str, params: Mapping[str, object]) -> None:
        contact = changed_contact(query, params)
        if contact is not None:
            cache.forget(contact)
            if changes is not None:
                changes.tell(contact)

    db.watch_answers(answered)
    return cache, changes


@asynccontextmanager
async def opened(settings: Settings, *, pool_size: int | None = None) -> AsyncIterator[Parts]:
    """The parts for as long as the block lasts."""
    parts = assemble(settings, pool_size=pool_size)
    try:
        async with _telling_calls(parts):
            yield parts
    finally:
        await parts.close()


@asynccontextmanager
async def _telling_calls(parts: Parts) -> AsyncIterator[None]:
    """Meanwhile, and once more at the end, the calls of this process are added to those of all."""

    async def tell_for_ever() -> None:
        while True:
            await asyncio.sleep(_TELL_CALLS_EVERY_S)
            with suppress(TallybookError):
                await parts.crm_calls.tell(parts.db)

    task = asyncio.create_task(tell_for_ever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with suppress(TallybookError):
            await parts.crm_calls.tell(parts.db)


def unlimited_hubspot(settings: Settings) -> HubSpotClient:
    """A client that counts no calls: for the few of `doctor`, which must work without a database."""
    return HubSpotClient(_connection(settings), budget=UnlimitedBudget())


def _connection(settings: Settings) -> HubSpotConnection:
    return HubSpotConnection(
        base_url=settings.hubspot_base_url,
        token=settings.text("HS_PRIVATE_APP_TOKEN") or "",
        mock_exams_object=settings.hubspot_mock_exams_object,
        bookings_object=settings.hubspot_bookings_object,
    )


def _budget(settings: Settings, db: Database, call_timeout_s: float) -> CallBudget:
    if settings.hs_private_app_token is None:
        return _NoHubSpot()
    limits = [CallLimit(settings.hubspot_calls_per_10s, 10.0)]
    if settings.hubspot_calls_per_s is not None:
        limits.append(CallLimit(settings.hubspot_calls_per_s, 1.0))
    shared = PostgresCallBudget(
        db,
        limits=limits,
        search_limits=[CallLimit(settings.hubspot_searches_per_s, 1.0)],
        shares={kind.value: share for kind, share in SHARES.items()},
        search_shares={kind.value: share for kind, share in SEARCH_SHARES.items()},
        call_timeout_s=call_timeout_s,
    )
    local = LocalCallBudget(
        limits,
        processes=settings.tallybook_processes,
        unsigned_share=SHARES[CallKind.UNSIGNED_MISS],
    )
    return SharedBudget(shared, local)


def create_application(parts: Parts) -> ASGIApp:
    """The HTTP application, which closes the parts when it stops. Raises SetupError for what it refuses."""
    # Most commands serve nothing and should not wait for this.
    from tallybook.api.app import AppDeps, create_app  # noqa: PLC0415

    settings = parts.settings
    check_can_serve(settings)
    return create_app(
        AppDeps(
            db=parts.db,
            students=parts.students,
            catalog=parts.catalog,
            config=_api_config(settings),
            find_key=partial(find_key, parts.db),
            mailer=mailer(settings),
            credits_cache=parts.credits_cache,
            verify_staff=partial(verify_staff, parts.db),
            admit_staff=partial(admit_staff, parts.db),
            refresh_contact=partial(_refresh_contact, parts),
            readiness=partial(_readiness, parts),
            cron_jobs=cron_jobs(parts),
            reconcile=partial(_reconcile_now, parts),
            pool_figures=partial(_pool_figures, parts.db),
            crm_figures=lambda: parts.crm_calls.by_kind,
            watch_store_failures=parts.students.watch_store_failures,
            lifespan=partial(_lifespan, parts),
        )
    )


def application_from_environment() -> ASGIApp:
    """What each worker process of uvicorn calls."""
    settings = load_settings()
    configure_logging(settings)
    return create_application(assemble(settings))


def check_can_serve(settings: Settings) -> None:
    """Nothing when a server may start with these settings. Raises SetupError naming what is missing."""
    for variable in ("DATABASE_URL", "TALLYBOOK_SECRET_KEY", "TALLYBOOK_LOGIN_CODE"):
        settings.needed(variable)
    if settings.tallybook_login_code == "email" and mailer(settings) is None:
        raise SetupError(
            "TALLYBOOK_LOGIN_CODE=email needs TALLYBOOK_SMTP_URL.",
            hint="Set TALLYBOOK_SMTP_URL and TALLYBOOK_MAIL_FROM, or choose TALLYBOOK_LOGIN_CODE=none.",
        )


def configure_logging(settings: Settings, stream: BinaryIO | None = None) -> None:
    """JSON lines, from `TALLYBOOK_LOG_LEVEL` on, into `stream` (default standard output)."""
    configure_logs(stream)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.tallybook_log_level])
    )


def mailer(settings: Settings) -> Mailer | None:
    """What sends mail; None without `TALLYBOOK_SMTP_URL`. Raises SetupError."""
    text = settings.text("TALLYBOOK_SMTP_URL")
    if text is None:
        return None
    return Mailer(MailSettings.parse(text, sender=settings.needed("TALLYBOOK_MAIL_FROM")))


def alert_sender(settings: Settings) -> AlertSender | None:
    """What sends alerts; None without `TALLYBOOK_ALERT_URL`. Raises SetupError."""
    url = settings.text("TALLYBOOK_ALERT_URL")
    if url is None:
        return None
    return AlertSender(url, secret=settings.needed("TALLYBOOK_ALERT_SECRET"))


def alert_limits(settings: Settings) -> AlertLimits:
    """What is worth an alert."""
    lag_s = float(settings.tallybook_alert_lag_s)
    return AlertLimits(lag_s=lag_s, inbox_s=lag_s)


def cron_jobs(parts: Parts) -> dict[str, CronJob]:
    """The periodic jobs by the last part of their addresses."""
    mirror = parts.mirror

    def guarded(job: str, work: Callable[..., Awaitable[JobResult]]) -> CronJob:
        """A job of the mirror: one caller at a time, and only where database and portal belong together."""

        async def once(max_s: float) -> JobResult:
            await watch_portal(mirror)
            return await work(mirror, max_s=max_s)

        async def run(max_s: float) -> Mapping[str, object]:
            return await report(parts.db, job, partial(once, max_s))

        return run

    async def activate(max_s: float) -> Mapping[str, object]:
        observe = parts.settings.observes
        work = partial(activate_exams.activate_exams, parts.db, max_s=max_s, observe=observe)
        return await report(parts.db, activate_exams.JOB, work)

    async def expire(max_s: float) -> Mapping[str, object]:
        work = partial(expire_holds.expire_holds, parts.db, max_s=max_s)
        return await report(parts.db, expire_holds.JOB, work)

    return {
        "activate-scheduled-exams": activate,
        "expire-holds": expire,
        "sync-supabase": guarded("sync-supabase", partial(pull_until, full=True)),
        "warm-contact-credits-cache": guarded("warm-contact-credits-cache", pull_until),
        "batch-sync-hubspot": guarded("batch-sync-hubspot", push_until),
        RECONCILE: guarded(RECONCILE, reconcile),
        _DAILY: guarded(RECONCILE, reconcile_daily),
    }


async def _reconcile_now(parts: Parts, max_s: float, repair: bool) -> Mapping[str, object]:
    """What staff ask for; it goes on with one that is under way."""

    async def work() -> JobResult:
        await watch_portal(parts.mirror)
        return await reconcile(parts.mirror, max_s=max_s, repair=repair)

    return await report(parts.db, RECONCILE, work)


def worker_loops(parts: Parts) -> dict[str, Loop]:
    """What a worker does all the time."""
    if parts.settings.hs_private_app_token is None:
        return {}
    return {"mirror": partial(run_mirror, parts.mirror)}


def worker_jobs(parts: Parts) -> tuple[Periodic, ...]:
    """What comes round in a worker. Each is done by one worker at a time, whoever else is told to."""
    jobs = cron_jobs(parts)
    has_hubspot = parts.settings.hs_private_app_token is not None
    daily = (Periodic(RECONCILE, 300, partial(jobs[_DAILY], _RUN_S)),) if has_hubspot else ()
    alert = partial(send_alerts, parts.db, alert_sender(parts.settings), limits=alert_limits(parts.settings))
    return (
        Periodic(activate_exams.JOB, 60, partial(jobs[activate_exams.JOB], _RUN_S), at_the_minute=True),
        Periodic(expire_holds.JOB, 60, partial(jobs[expire_holds.JOB], _RUN_S)),
        *daily,
        Periodic(SEND_ALERTS, 15, partial(report, parts.db, SEND_ALERTS, alert)),
    )


def worker_run(parts: Parts) -> tuple[Periodic, ...]:
    """Everything a worker does, once: what waits is pulled and pushed, each job runs."""
    mirrored = ("warm-contact-credits-cache", "batch-sync-hubspot")
    jobs = cron_jobs(parts)
    loops = mirrored if parts.settings.hs_private_app_token is not None else ()
    return (*(Periodic(name, 0, partial(jobs[name], _RUN_S)) for name in loops), *worker_jobs(parts))


def _api_config(settings: Settings) -> ApiConfig:
    from tallybook.api.deps import ApiConfig  # noqa: PLC0415 - as above

    return ApiConfig(
        secret_key=settings.needed("TALLYBOOK_SECRET_KEY"),
        secret_key_previous=settings.text("TALLYBOOK_SECRET_KEY_PREVIOUS"),
        login_code=settings.tallybook_login_code == "email",
        pair_mode=settings.tallybook_student_auth == "pair",
        cors_origins=settings.tallybook_cors_origins,
        trusted_proxies=settings.tallybook_trusted_proxies,
        time_zone=settings.tallybook_time_zone,
        cron_secret=settings.text("CRON_SECRET"),
        metrics_token=settings.text("TALLYBOOK_METRICS_TOKEN"),
        public_docs=settings.tallybook_docs == "public",
        observe=settings.observes,
        public_url=settings.tallybook_public_url,
        hubspot_client_secret=settings.text("HUBSPOT_CLIENT_SECRET"),
        stripe_webhook_secret=settings.text("STRIPE_WEBHOOK_SECRET"),
        hubspot_types={
            settings.hubspot_mock_exams_object: MirroredType.MOCK_EXAM,
            settings.hubspot_bookings_object: MirroredType.BOOKING,
        },
    )


async def _refresh_contact(parts: Parts, contact: str) -> UUID:
    return await refresh_contact(parts.mirror, contact=contact)


async def _readiness(parts: Parts) -> Readiness:
    return await check_readiness(parts.db, parts.catalog, release=release())


def _pool_figures(db: Database) -> dict[str, float]:
    use = db.use
    return {
        "in_use": use.in_use,
        "idle": use.open - use.in_use,
        "waiting": use.waiting,
        "size": use.size,
    }


@asynccontextmanager
async def _lifespan(parts: Parts) -> AsyncIterator[None]:
    # What is there now stays until the end: the collector need not look at it again with every pass.
    gc.freeze()
    try:
        async with _telling_calls(parts), _hearing_changes(parts):
            yield
    finally:
        await parts.close()


@asynccontextmanager
async def _hearing_changes(parts: Parts) -> AsyncIterator[None]:
    """Meanwhile, what other processes changed is forgotten here."""
    if parts.changes is None or parts.credits_cache is None:
        yield
        return
    task = asyncio.create_task(parts.changes.hear(parts.credits_cache.forget, everybody=EVERYBODY))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
