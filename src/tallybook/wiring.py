"""Settings to database, HubSpot client and application: the one place that knows every part."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID

import structlog

from tallybook.api.logs import configure_logs
from tallybook.domain.call_limits import CallLimit
from tallybook.domain.catalog import Catalog, default_catalog_text, parse_catalog
from tallybook.domain.errors import SetupError
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import (
    SEARCH_SHARES,
    SHARES,
    CallBudget,
    CallKind,
    LocalCallBudget,
    NoHubSpot,
    SharedBudget,
    UnlimitedBudget,
)
from tallybook.hubspot.client import HubSpotClient
from tallybook.hubspot.connection import HubSpotConnection
from tallybook.jobs import schedule
from tallybook.jobs.schedule import cron_jobs, reconcile_now
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
from tallybook.usecases.guard_mirror import PortalGuard, demand_same_portal_to_read
from tallybook.usecases.keys import find_key
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.record_crm_calls import CrmCallCounts
from tallybook.usecases.refresh_contact import refresh_contact
from tallybook.usecases.sign_in_staff import admit_staff
from tallybook.usecases.verify_staff import verify_staff
from tallybook.usecases.watch_mirror import AlertLimits

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from tallybook.api.deps import ApiConfig
    from tallybook.outbound.changes import ChangeBus

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def release() -> str:
    """The version of this release."""
    return version("tallybook")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything a command or a server works with. Nothing is connected until it is used."""

    settings: Settings
    catalog: Catalog
    db: Database
    hubspot: HubSpotClient
    mirror: Mirror
    portal: PortalGuard
    students: Students
    crm_calls: CrmCallCounts
    credits_cache: CreditsCache | None = None
    changes: ChangeBus | None = None

    @property
    def has_hubspot(self) -> bool:
        """Whether there is a token to call HubSpot with."""
        return self.settings.hs_private_app_token is not None

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
    mirror = Mirror(
        db=db,
        client=hubspot,
        catalog=catalog,
        time_zone=settings.tallybook_time_zone,
        observe=settings.observes,
    )
    portal = PortalGuard(partial(demand_same_portal_to_read, mirror))
    cache, changes = _display_cache(settings, db)
    return Parts(
        settings=settings,
        catalog=catalog,
        db=db,
        hubspot=hubspot,
        mirror=mirror,
        portal=portal,
        students=Students(hubspot, db, catalog, portal),
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
        async with parts.crm_calls.telling(parts.db):
            yield parts
    finally:
        await parts.close()


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
        return NoHubSpot()
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
            cron_jobs=cron_jobs(parts.mirror),
            reconcile=partial(reconcile_now, parts.mirror),
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


def worker_loops(parts: Parts) -> dict[str, Loop]:
    """What a worker does all the time."""
    return schedule.worker_loops(parts.mirror, has_hubspot=parts.has_hubspot)


def worker_jobs(parts: Parts) -> tuple[Periodic, ...]:
    """What comes round in a worker."""
    return schedule.worker_jobs(
        parts.mirror,
        has_hubspot=parts.has_hubspot,
        sender=alert_sender(parts.settings),
        limits=alert_limits(parts.settings),
    )


def worker_run(parts: Parts) -> tuple[Periodic, ...]:
    """Everything a worker does, once."""
    loops = schedule.worker_loops_once(parts.mirror, has_hubspot=parts.has_hubspot)
    return (*loops, *worker_jobs(parts))


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
    return await refresh_contact(parts.mirror, parts.portal, contact=contact)


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
        async with parts.crm_calls.telling(parts.db), _hearing_changes(parts):
            if parts.has_hubspot:
                await parts.portal.look_ahead()
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
