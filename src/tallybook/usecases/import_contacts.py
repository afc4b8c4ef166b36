"""Imports every student of a HubSpot portal: at the rate its limits allow, in constant memory, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from tallybook.domain.catalog import Catalog
from tallybook.domain.mirror import MirroredType, Outcome
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import HubSpotClient
from tallybook.hubspot.fields import RemoteContact, contact_properties, parse_contact
from tallybook.hubspot.walk import walk
from tallybook.postgres.pool import Database
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.ask_to_read import ask_to_read
from tallybook.usecases.import_records import STATISTICS_AFTER_PAGES, left_of_last_time, remember

_STATE = "contacts"


@dataclass(slots=True)
class ImportResult:
    """What an import has done so far: `read` contacts of `total` (None: unknown), of them `students`.

    `with_credits` and `credits` count the balances HubSpot showed, per credit type. `complete` is false when
    it stopped at a limit; the next import goes on from there.
    """

    read: int = 0
    students: int = 0
    not_stored: int = 0
    unreadable: int = 0
    total: int | None = None
    with_any_credits: int = 0
    with_credits: dict[str, int] = field(default_factory=dict)
    credits: dict[str, int] = field(default_factory=dict)
    resumed: bool = False
    complete: bool = False
    duration_s: float = 0.0

    def count(self, contacts: Sequence[RemoteContact]) -> None:
        """Adds what these contacts show."""
        for contact in contacts:
            self.students += 1
            self.unreadable += len(contact.unreadable)
            self.with_any_credits += any(contact.balances.values())
            for name, number in contact.balances.items():
                self.with_credits[name] = self.with_credits.get(name, 0) + (number > 0)
                self.credits[name] = self.credits.get(name, 0) + number


async def import_contacts(
    db: Database,
    client: HubSpotClient,
    catalog: Catalog,
    *,
    limit: int | None = None,
    batch_size: int = 100,
    dry_run: bool = False,
    max_s: float | None = None,
    on_progress: Callable[[ImportResult], None] = lambda _: None,
) -> ImportResult:
    """Merges all contacts that have a student ID. Repeating it changes nothing; a dry run writes nothing.

    Stops after `limit` students or `max_s` seconds; what is left is remembered and the next call goes on with
    it. Raises CrmBusy, CrmUnavailable, SetupError, DatabaseUnavailable; what was stored until then stays.
    """
    started = time.monotonic()
    left = None if dry_run or limit is not None else await left_of_last_time(db, _STATE)
    result = ImportResult(resumed=left is not None)
    pages = walk(client, "contacts", properties=contact_properties(catalog), kind=CallKind.IMPORT, left=left)
    page_number = 0
    async with aclosing(pages):
        async for page in pages:
            page_number += 1
            contacts = [parse_contact(record, catalog) for record in page.records]
            students = [contact for contact in contacts if contact.student_id is not None]
            if limit is not None:
                students = students[: limit - result.students]
            if not dry_run:
                await _store(db, students, batch_size=batch_size, result=result)
                if page_number in STATISTICS_AFTER_PAGES:
                    await db.fetch_all("refresh_statistics")
            result.count(students)
            result.read += len(contacts)
            result.total = page.total
            result.duration_s = time.monotonic() - started
            if not dry_run and limit is None:
                await remember(db, _STATE, page.left)
            on_progress(result)
            if limit is not None and result.students >= limit:
                return result
            if max_s is not None and result.duration_s >= max_s and page.left:
                return result
    result.complete = True
    result.duration_s = time.monotonic() - started
    return result


async def _store(
    db: Database, students: Sequence[RemoteContact], *, batch_size: int, result: ImportResult
) -> None:
    for start in range(0, len(students), batch_size):
        batch = students[start : start + batch_size]
        absorbed = await absorb_contacts(db, batch, first_reason="import")
        result.not_stored += sum(each.contact_id is None for each in absorbed.values())
        # A list has no histories; those that need them are read again, one by one.
        again = [
            hubspot_id
            for hubspot_id, each in absorbed.items()
            if each.outcome in (Outcome.NEED_HISTORY, Outcome.AGAIN)
        ]
        if again:
            await ask_to_read(db, MirroredType.CONTACT, again)
