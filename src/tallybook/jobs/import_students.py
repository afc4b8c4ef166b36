"""The job behind `sync-supabase` and `warm-contact-credits-cache`, and the lease of `tallybook import`."""

from __future__ import annotations

from tallybook.jobs.lease import JobResult
from tallybook.usecases.import_portal import PortalImported, import_portal
from tallybook.usecases.mirror import Mirror

# One name for both addresses and the command: they share the place where the last run stopped.
JOB = "import"


async def import_students(mirror: Mirror, *, max_s: float) -> JobResult:
    """Imports as much of everything as the time allows; the next run goes on where this one stopped."""
    return job_result(await import_portal(mirror, max_s=max_s))


def job_result(result: PortalImported) -> JobResult:
    """The counts of an import."""
    counts = {
        "read": result.contacts.read,
        "students": result.contacts.students,
        "not_stored": result.contacts.not_stored,
        "unreadable": result.contacts.unreadable,
        "mock_exams": result.mock_exams.read,
        "mock_exams_not_stored": result.mock_exams.not_stored,
        "bookings": result.bookings.read,
        "bookings_not_stored": result.bookings.not_stored,
    }
    return JobResult(counts, done=result.complete)
