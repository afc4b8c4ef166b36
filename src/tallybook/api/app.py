"""The API as an ASGI application, put together from what `wiring.py` hands in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext

import msgspec
from starlette.routing import Router
from starlette.types import ASGIApp

from tallybook.api.background import Background
from tallybook.api.callers import Doorkeeper, Doors
from tallybook.api.cors import Cors
from tallybook.api.deps import ApiConfig, AppDeps
from tallybook.api.docs_page import docs_page
from tallybook.api.gate import Gate
from tallybook.api.keys import ApiKeys
from tallybook.api.metrics import Metrics
from tallybook.api.mirror_metrics import MirrorFigures
from tallybook.api.openapi import openapi_document
from tallybook.api.route import Route, RouteTable
from tallybook.api.routes import ROUTES
from tallybook.api.services import Services
from tallybook.api.staff_tokens import StaffTokens
from tallybook.api.tokens import StudentTokens

__all__ = ["ApiConfig", "AppDeps", "create_app"]


def create_app(deps: AppDeps, *, routes: Iterable[Route] = ROUTES) -> ASGIApp:
    """The application. `configure_logs` decides where its log lines go and has to come first."""
    config = deps.config
    table = RouteTable(routes)
    tokens = StudentTokens(config.secret_key, previous=config.secret_key_previous, clock=deps.clock)
    staff_tokens = StaffTokens(config.secret_key, previous=config.secret_key_previous, clock=deps.clock)
    keys = ApiKeys(
        config.secret_key, previous=config.secret_key_previous, find_key=deps.find_key, clock=deps.clock
    )
    doors = Doors(
        cron_secret=config.cron_secret,
        metrics_token=config.metrics_token,
        pair_mode=config.pair_mode,
        public_docs=config.public_docs,
        hubspot_webhooks=bool(config.hubspot_client_secret and config.public_url),
        stripe_webhooks=config.stripe_webhook_secret is not None,
        trusted_proxies=config.trusted_proxies,
    )
    document = openapi_document(table.routes)
    metrics = Metrics(
        pool_figures=deps.pool_figures,
        crm_figures=deps.crm_figures,
        mirror_figures=MirrorFigures(deps.db),
    )
    if deps.watch_store_failures is not None:
        deps.watch_store_failures(metrics.count_not_stored)
    services = Services(
        deps=deps,
        tokens=tokens,
        staff_tokens=staff_tokens,
        metrics=metrics,
        background=Background(),
        openapi=msgspec.json.encode(document),
        docs_page=docs_page(document),
    )
    return Gate(
        services,
        routes=table,
        doorkeeper=Doorkeeper(
            doors,
            tokens=tokens,
            staff_tokens=staff_tokens,
            keys=keys,
            verify_staff=deps.verify_staff,
            admit_staff=deps.admit_staff,
        ),
        cors=Cors(config.cors_origins) if config.pair_mode and config.cors_origins else None,
        lifespan=_lifespan(services),
        observe=config.observe,
    )


def _lifespan(services: Services) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        async with services.deps.lifespan() if services.deps.lifespan is not None else nullcontext():
            yield
            # Mails that were promised still need what the lifespan holds open.
            await services.background.close()

    return Router(lifespan=lifespan)
