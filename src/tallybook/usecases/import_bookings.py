"""Brings all bookings of a HubSpot portal into the database, cancelled ones as history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.booking_fields import BOOKING_PROPERTIES, parse_booking
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.records import Record
from tallybook.usecases.absorb_bookings import absorb_bookings
from tallybook.usecases.ask_to_read import ask_to_read
from tallybook.usecases.import_records import Imported, import_records
from tallybook.usecases.mirror import Mirror

_SESSIONS_AT_ONCE = 500
# One page keeps one connection of PostgreSQL busy; bookings are more work than HubSpot's limits let arrive.
_PAGES_AT_ONCE = 2


@dataclass(slots=True, kw_only=True)
class BookingsImported(Imported):
    """`statuses` counts them by status, `paid` those live ones whose token the catalog knows."""

    statuses: dict[str, int] = field(default_factory=dict)
    paid: int = 0


async def import_bookings(
    mirror: Mirror,
    *,
    limit: int | None = None,
    dry_run: bool = False,
    max_s: float | None = None,
    on_progress: Callable[[BookingsImported], None] = lambda _: None,
) -> BookingsImported:
    """Merges all bookings; contacts and mock exams they need are read first where they are not stored.

    Repeating it changes nothing; a dry run writes nothing. When it is complete, HubSpot is told the number of
    bookings of each mock exam where it differs.
    """
    result = BookingsImported()

    async def take(records: Sequence[Record]) -> None:
        for record in records:
            booking = parse_booking(record, mirror.catalog)
            result.statuses[booking.status] = result.statuses.get(booking.status, 0) + 1
            result.paid += booking.status.is_live and booking.credit_type is not None
            result.not_stored += dry_run and bool(booking.problems)
        if not dry_run:
            taken = await absorb_bookings(
                mirror, records, importing=True, kind=CallKind.IMPORT, deadline_s=120.0
            )
            result.not_stored += len(taken.errors)
            if taken.again:
                await ask_to_read(mirror.db, MirroredType.BOOKING, taken.again)

    await import_records(
        mirror,
        MirroredType.BOOKING,
        result,
        take,
        properties=BOOKING_PROPERTIES,
        associations=(mirror.crm_type(MirroredType.CONTACT), mirror.crm_type(MirroredType.MOCK_EXAM)),
        at_once=1 if limit is not None or dry_run else _PAGES_AT_ONCE,
        limit=limit,
        dry_run=dry_run,
        max_s=max_s,
        on_progress=lambda: on_progress(result),
    )
    if not dry_run and (result.complete or limit is not None):
        await _tell_numbers(mirror)
    return result


async def _tell_numbers(mirror: Mirror) -> None:
    after = None
    while True:
        row = await mirror.db.fetch_one("note_bookings_counted", {"after": after, "limit": _SESSIONS_AT_ONCE})
        after = row[0] if row else None
        if after is None:
            return
