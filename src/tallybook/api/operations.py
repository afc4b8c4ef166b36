"""Addresses for those who run Tallybook: health, figures, the document, periodic work."""

from __future__ import annotations

from tallybook.api.metrics import CONTENT_TYPE
from tallybook.api.replies import Reply, success, success_of
from tallybook.api.route import Call
from tallybook.api.services import Services
from tallybook.api.setup_errors import tell_setup_errors
from tallybook.domain.errors import DatabaseUnavailable, NotFound

_PAGE_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


async def healthz(_services: Services, _call: Call) -> Reply:
    """The process runs and answers."""
    return success(b'{"status":"ok"}')


async def readyz(services: Services, _call: Call) -> Reply:
    """The process can do its work; if not, one word says what is missing."""
    status = await services.deps.readiness()
    if status != "ready":
        raise DatabaseUnavailable("Not ready to serve.", status=status)
    return success_of({"status": status})


async def metrics(services: Services, _call: Call) -> Reply:
    """Figures for Prometheus."""
    return Reply(200, await services.metrics.exposition(), ((b"content-type", CONTENT_TYPE),))


async def openapi(services: Services, _call: Call) -> Reply:
    """This document."""
    return Reply(200, services.openapi)


async def docs(services: Services, _call: Call) -> Reply:
    """The document as a page."""
    headers = ((b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", _PAGE_POLICY))
    return Reply(200, services.docs_page, headers)


async def cron(services: Services, call: Call) -> Reply:
    """Run one periodic job now, as long as it may."""
    job = services.deps.cron_jobs.get(call.route.path.rpartition("/")[2])
    if job is None:
        raise NotFound
    return success_of(dict(await tell_setup_errors(job(call.query.max_s))))
