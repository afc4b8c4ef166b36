"""Everything the API is given; it reads no settings and opens nothing by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from tallybook.api.callers import AdmitStaff, VerifyStaff
from tallybook.api.keys import FindKey
from tallybook.domain.catalog import Catalog
from tallybook.domain.mirror import MirroredType
from tallybook.postgres.pool import Database
from tallybook.usecases.credits_cache import CreditsCache
from tallybook.usecases.find_student import Students

CronJob = Callable[[float], Awaitable[Mapping[str, Any]]]
"""(seconds it may take) -> {counts, duration_ms, done}."""

RefreshContact = Callable[[str], Awaitable[UUID]]
"""(a contact as addresses name one) -> its UUID after HubSpot's record was read again and merged."""

Reconcile = Callable[[float, bool], Awaitable[Mapping[str, Any]]]
"""(seconds it may take, whether to repair) -> {counts, duration_ms, done}."""


class CrmCalls(Protocol):
    """How often HubSpot was called for one kind of call, since the start."""

    @property
    def calls(self) -> int: ...
    @property
    def throttled(self) -> int: ...


class CodeMailer(Protocol):
    """Sends a sign-in code."""

    async def send(self, *, to: str, subject: str, text: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """The settings that concern the API."""

    secret_key: str
    secret_key_previous: str | None = None
    login_code: bool
    """Whether a sign-in needs a code sent by mail (TALLYBOOK_LOGIN_CODE=email)."""
    pair_mode: bool = False
    cors_origins: tuple[str, ...] = ()
    """Where the old front end may be served from; only used in pair mode. `*` stands for anywhere."""
    trusted_proxies: int = 0
    time_zone: str = "America/Toronto"
    """Where "today" is, for dates that no place goes with."""
    cron_secret: str | None = None
    metrics_token: str | None = None
    public_docs: bool = False
    observe: bool = False
    """Refuse whatever may decide something (TALLYBOOK_MODE=observe)."""
    public_url: str | None = None
    """Where the world finds this server; never taken from a request."""
    hubspot_client_secret: str | None = None
    stripe_webhook_secret: str | None = None
    hubspot_types: Mapping[str, MirroredType] = field(default_factory=dict)
    """HubSpot's ids of the custom objects, as its webhooks name them."""


async def _always_ready() -> str:
    return "ready"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppDeps:
    """What `wiring.py` hands in."""

    db: Database
    students: Students
    catalog: Catalog
    config: ApiConfig
    find_key: FindKey
    mailer: CodeMailer | None = None
    credits_cache: CreditsCache | None = None
    """For showing credits only; None reads the database every time."""
    verify_staff: VerifyStaff | None = None
    admit_staff: AdmitStaff | None = None
    refresh_contact: RefreshContact | None = None
    reconcile: Reconcile | None = None
    clock: Callable[[], datetime] = _now
    readiness: Callable[[], Awaitable[str]] = _always_ready
    """"ready", or one word for what is missing, e.g. "schema_behind" or "database_down"."""
    cron_jobs: Mapping[str, CronJob] = field(default_factory=dict)
    """By the last part of the cron address."""
    pool_figures: Callable[[], Mapping[str, float]] | None = None
    """Connections by state: in_use, idle, waiting, size."""
    crm_figures: Callable[[], Mapping[str, CrmCalls]] | None = None
    """Calls to HubSpot by kind."""
    watch_store_failures: Callable[[Callable[[], None]], None] | None = None
    """Takes what to call whenever a student HubSpot knows could not be stored."""
    lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None
    """Opened before the first request and closed after the last."""
