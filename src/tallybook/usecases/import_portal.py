"""Brings a whole HubSpot portal into the database: contacts, mock exams, then the bookings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tallybook.usecases.guard_mirror import demand_same_portal
from tallybook.usecases.import_bookings import BookingsImported, import_bookings
from tallybook.usecases.import_contacts import ImportResult, import_contacts
from tallybook.usecases.import_mock_exams import MockExamsImported, import_mock_exams
from tallybook.usecases.import_records import Imported
from tallybook.usecases.mirror import Mirror

_STATE = "import:stage"
_CONTACTS, _MOCK_EXAMS, _BOOKINGS = range(3)


@dataclass(slots=True)
class PortalImported:
    """What an import has done so far, by type; `skipped` are those an earlier one that stopped had done."""

    contacts: ImportResult = field(default_factory=ImportResult)
    mock_exams: MockExamsImported = field(default_factory=MockExamsImported)
    bookings: BookingsImported = field(default_factory=BookingsImported)
    skipped: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is left for a next import."""
        return self.bookings.complete


async def import_portal(
    mirror: Mirror,
    *,
    limit: int | None = None,
    batch_size: int = 100,
    dry_run: bool = False,
    max_s: float | None = None,
    on_progress: Callable[[str, ImportResult | Imported], None] = lambda _, __: None,
) -> PortalImported:
    """Imports all three types in their order. Repeating it changes nothing; a dry run writes nothing.

    Stops after `limit` records of each type, or `max_s` seconds in all; the next call goes on with the type
    and the place where this one stopped. `on_progress` hears the type's name and its result. When the first
    one started is remembered: bookings made in HubSpot after it were made by hand. Raises CrmBusy,
    CrmUnavailable, SetupError, DatabaseUnavailable; what was stored until then stays.
    """
    ends_at = None if max_s is None else time.monotonic() + max_s
    remembers = not dry_run and limit is None
    if not dry_run:
        await demand_same_portal(mirror)
    # As long as the other system decides, what it books is no work by hand: nothing is the first import yet.
    if remembers and not mirror.observe:
        await mirror.db.fetch_all("begin_first_import")
    stage = await _stage_of_last_time(mirror) if remembers else _CONTACTS
    result = PortalImported(skipped=("contacts", "mock_exams")[:stage])

    def seconds_left() -> float | None:
        return None if ends_at is None else max(0.0, ends_at - time.monotonic())

    if stage == _CONTACTS:
        result.contacts = await import_contacts(
            mirror.db,
            mirror.client,
            mirror.catalog,
            limit=limit,
            batch_size=batch_size,
            dry_run=dry_run,
            max_s=seconds_left(),
            on_progress=lambda shown: on_progress("contacts", shown),
        )
        if not result.contacts.complete and limit is None:
            return result
        stage = await _next_stage(mirror, _MOCK_EXAMS, remembers=remembers)
    if stage == _MOCK_EXAMS:
        result.mock_exams = await import_mock_exams(
            mirror,
            limit=limit,
            dry_run=dry_run,
            max_s=seconds_left(),
            on_progress=lambda shown: on_progress("mock exams", shown),
        )
        if not result.mock_exams.complete and limit is None:
            return result
        await _next_stage(mirror, _BOOKINGS, remembers=remembers)
    result.bookings = await import_bookings(
        mirror,
        limit=limit,
        dry_run=dry_run,
        max_s=seconds_left(),
        on_progress=lambda shown: on_progress("bookings", shown),
    )
    if result.bookings.complete:
        await _next_stage(mirror, _CONTACTS, remembers=remembers)
        if remembers and not mirror.observe:
            await mirror.db.fetch_all("end_first_import")
    return result


async def _stage_of_last_time(mirror: Mirror) -> int:
    row = await mirror.db.fetch_one("load_sync_state", {"name": _STATE})
    return msgspec.json.decode(row[0], type=int) if row else _CONTACTS


async def _next_stage(mirror: Mirror, stage: int, *, remembers: bool) -> int:
    if remembers:
        await mirror.db.fetch_all("save_sync_state", {"name": _STATE, "value": str(stage)})
    return stage
