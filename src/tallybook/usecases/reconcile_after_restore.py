"""Brings a restored database back to the truth, of which HubSpot has whatever was pushed since the backup.

Bookings of the forgotten hour come back under their ids and keep their seats; what it cancelled, moved or
reinstated is so again. A contact's numbers become HubSpot's, plus what was booked here since the restore,
plus what HubSpot had not been told: nothing is spent or granted twice. The rest is shown to a person.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tallybook.domain.mirror import MirroredType, Outcome
from tallybook.hubspot.booking_fields import BOOKING_PROPERTIES, parse_booking
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import HISTORY_BATCH_SIZE
from tallybook.hubspot.fields import contact_properties, history_properties, parse_contact
from tallybook.hubspot.records import Record
from tallybook.hubspot.session_fields import MOCK_EXAM_PROPERTIES
from tallybook.hubspot.walk import walk
from tallybook.usecases.absorb_bookings import absorb_bookings
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.absorb_mock_exams import absorb_mock_exams
from tallybook.usecases.guard_mirror import raise_epoch, read_portal
from tallybook.usecases.learn_stamp_times import own_within
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.pull_contacts import pull_contacts
from tallybook.usecases.rebind_mirror import forget_records

_KIND = CallKind.RECONCILE
_DEADLINE_S = 120.0
# HubSpot's histories may come a little later than the values.
_AGAIN_AFTER_S = (0.5, 2.0, 8.0)


@dataclass(slots=True)
class Restored:
    """What was compared and put right; `left` are contacts whose histories were not up to their values.

    `needed`: the mirror was on hold. `done`: the hold is over.
    """

    needed: bool = True
    mock_exams: int = 0
    contacts: int = 0
    bookings: int = 0
    decisions_repeated: int = 0
    contacts_restored: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    done: bool = False


async def reconcile_after_restore(
    mirror: Mirror, *, on_progress: Callable[[Restored], None] = lambda _: None
) -> Restored:
    """Compares everything with HubSpot, and ends the hold when all of it was; repeating it changes nothing.

    Nobody else may pull meanwhile, which the hold sees to. Raises CrmBusy, CrmUnavailable, SetupError,
    DatabaseUnavailable; what was put right until then stays, and the next call goes on.
    """
    row = await mirror.db.fetch_one("show_hold")
    assert row is not None
    hold, ours_stand = row
    result = Restored(needed=hold is not None)
    if hold is None:
        result.done = True
        return result
    portal = await read_portal(mirror)
    await forget_records(mirror)
    run = _Run(mirror, result, on_progress, ours_stand=ours_stand)
    await run.mock_exams()
    await run.contacts()
    await run.bookings()
    await run.numbers()
    if result.left:
        return result
    await mirror.db.fetch_all("end_restore", {"epoch": portal.marker.epoch if portal.marker else 0})
    if portal.can_be_marked and not mirror.observe:
        await raise_epoch(mirror)
    result.done = True
    return result


class _Run:
    """The steps in their order: each needs what the one before has brought."""

    def __init__(
        self, mirror: Mirror, result: Restored, on_progress: Callable[[Restored], None], *, ours_stand: bool
    ) -> None:
        self._mirror = mirror
        self._result = result
        self._on_progress = on_progress
        self._ours_stand = ours_stand
        self._ahead: list[str] = []

    async def mock_exams(self) -> None:
        async for records in self._pages(MirroredType.MOCK_EXAM, MOCK_EXAM_PROPERTIES):
            taken = await absorb_mock_exams(self._mirror, records)
            self._result.mock_exams += len(records)
            self._result.errors.update(taken.errors)
            self._on_progress(self._result)

    async def contacts(self) -> None:
        """People of the forgotten hour get their ids back; whom HubSpot is ahead of waits for `numbers`."""
        mirror = self._mirror
        async for records in self._pages(MirroredType.CONTACT, contact_properties(mirror.catalog)):
            contacts = [parse_contact(record, mirror.catalog) for record in records]
            answers = _json([each.to_absorb() for each in contacts if each.student_id is not None])
            query = "keep_ours" if self._ours_stand else "remember_contacts"
            await mirror.db.fetch_all(query, {"records": answers})
            absorbed = await absorb_contacts(mirror.db, contacts, first_reason="crm_link", students_only=True)
            needing = [
                hubspot_id
                for hubspot_id, each in absorbed.items()
                if each.outcome in (Outcome.NEED_HISTORY, Outcome.AGAIN)
            ]
            self._ahead += [key for key, each in absorbed.items() if each.outcome is Outcome.AHEAD]
            await pull_contacts(mirror, needing, kind=_KIND, deadline_s=_DEADLINE_S, with_history=True)
            self._result.contacts += len(records)
            self._on_progress(self._result)

    async def bookings(self) -> None:
        """What was decided about known ones is repeated first: nothing is left to be obeyed as a command."""
        mirror = self._mirror
        ends = (mirror.crm_type(MirroredType.CONTACT), mirror.crm_type(MirroredType.MOCK_EXAM))
        async for records in self._pages(MirroredType.BOOKING, BOOKING_PROPERTIES, ends):
            answers = [parse_booking(record, mirror.catalog).to_absorb() for record in records]
            if not self._ours_stand:
                row = await mirror.db.fetch_one("repeat_decisions", {"records": _json(answers)})
                self._result.decisions_repeated += row[0] if row else 0
            taken = await absorb_bookings(mirror, records, kind=_KIND, deadline_s=_DEADLINE_S)
            await mirror.db.fetch_all("show_clashes", {"hubspot_ids": [record.id for record in records]})
            self._result.bookings += len(records)
            self._result.errors.update(taken.errors)
            self._on_progress(self._result)

    async def numbers(self) -> None:
        """Contacts HubSpot is ahead of, and those for whom bookings came back."""
        rows = await self._mirror.db.fetch_all("contacts_with_effects")
        left = tuple(dict.fromkeys((*self._ahead, *(hubspot_id for (hubspot_id,) in rows))))
        for wait_s in (*_AGAIN_AFTER_S, None):
            left = await self._restore(left)
            if not left or wait_s is None:
                break
            await asyncio.sleep(wait_s)
        self._result.left = left

    async def _restore(self, hubspot_ids: Sequence[str]) -> tuple[str, ...]:
        """Those whose histories were late."""
        mirror = self._mirror
        late: list[str] = []
        for start in range(0, len(hubspot_ids), HISTORY_BATCH_SIZE):
            records = await mirror.client.batch_read(
                mirror.crm_type(MirroredType.CONTACT),
                hubspot_ids[start : start + HISTORY_BATCH_SIZE],
                properties=contact_properties(mirror.catalog),
                with_history=history_properties(mirror.catalog),
                kind=_KIND,
                deadline_s=_DEADLINE_S,
            )
            within = await own_within(mirror.db)
            for record in records:
                answer = parse_contact(record, mirror.catalog, own_within=within).to_absorb()
                row = await mirror.db.fetch_one("restore_contact", {"record": _json(answer)})
                assert row is not None
                if row[0] in (Outcome.AGAIN, Outcome.NEED_HISTORY):
                    late.append(record.id)
                else:
                    self._result.contacts_restored += 1
            self._on_progress(self._result)
        return tuple(late)

    async def _pages(
        self, of: MirroredType, properties: Sequence[str], associations: Sequence[str] = ()
    ) -> AsyncIterator[Sequence[Record]]:
        mirror = self._mirror
        pages = walk(
            mirror.client,
            mirror.crm_type(of),
            properties=properties,
            associations=associations,
            kind=_KIND,
            page_deadline_s=_DEADLINE_S,
        )
        async with aclosing(pages):
            async for page in pages:
                yield page.records


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
