"""The job behind `sync-supabase` and `warm-contact-credits-cache`, and the lease of `tallybook import`."""

from __future__ import annotations

from tallybook.domain.catalog import Catalog
from tallybook.hubspot.client import HubSpotClient
from tallybook.jobs.lease import JobResult
from tallybook.postgres.pool import Database
from tallybook.usecases.import_contacts import import_contacts

# One name for both addresses and the command: they share the place where the last run stopped.
JOB = "import"


async def import_students(
    db: Database, client: HubSpotClient, catalog: Catalog, *, max_s: float
) -> JobResult:
    """Imports as much as the time allows; the next run goes on where this one stopped."""
    result = await import_contacts(db, client, catalog, max_s=max_s)
    counts = {
        "read": result.read,
        "students": result.students,
        "not_stored": result.not_stored,
        "unreadable": result.unreadable,
    }
    return JobResult(counts, done=result.complete)
