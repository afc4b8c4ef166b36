"""Reads contacts from HubSpot and merges them; asks for histories only where they decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tallybook.domain.mirror import Outcome
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import BATCH_SIZE, HISTORY_BATCH_SIZE
from tallybook.hubspot.connection import CONTACTS
from tallybook.hubspot.fields import (
    RemoteContact,
    contact_properties,
    history_properties,
    parse_contact,
)
from tallybook.hubspot.histories import SAME_TIME
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.learn_stamp_times import own_within
from tallybook.usecases.mirror import Mirror, Pulled


async def pull_contacts(
    mirror: Mirror,
    hubspot_ids: Iterable[str],
    *,
    kind: CallKind,
    deadline_s: float = 30.0,
    with_history: bool = False,
    students_only: bool = True,
    first_reason: str = "crm_link",
) -> Pulled:
    """Reads these contacts and absorbs them, a hundred a call; those that need their histories, fifty a call.

    `with_history` asks for them at once, as a read-back of own writes does. `students_only`: people without a
    student ID are merged only when they are stored already. One of ours that HubSpot does not show is read
    singly before it counts as gone: it may have become another record, or be in the recycle bin. Raises
    CrmBusy, CrmUnavailable, SetupError, DatabaseUnavailable; what was absorbed until then stays.
    """
    reader = _Reader(mirror, kind, deadline_s, students_only=students_only, first_reason=first_reason)
    wanted = tuple(dict.fromkeys(hubspot_ids))
    if not with_history:
        for start in range(0, len(wanted), BATCH_SIZE):
            await reader.read(wanted[start : start + BATCH_SIZE], history=False)
        wanted = reader.with_outcome(Outcome.NEED_HISTORY)
    for start in range(0, len(wanted), HISTORY_BATCH_SIZE):
        await reader.read(wanted[start : start + HISTORY_BATCH_SIZE], history=True)
    await reader.follow_missing()
    return reader.pulled()


class _Reader:
    """Reads and absorbs in parts, and remembers what became of each record."""

    def __init__(
        self, mirror: Mirror, kind: CallKind, deadline_s: float, *, students_only: bool, first_reason: str
    ) -> None:
        self._mirror = mirror
        self._kind = kind
        self._deadline_s = deadline_s
        self._students_only = students_only
        self._first_reason = first_reason
        self._outcomes: dict[str, Outcome] = {}
        self._missing: set[str] = set()
        self._absent: set[str] = set()
        self._asked_for = frozenset(
            name for each in mirror.catalog.mirrored_credit_types if (name := each.hubspot_property)
        )

    async def read(self, ids: Sequence[str], *, history: bool) -> None:
        """Reads and absorbs what one call can ask for."""
        contacts = await self._fetch(ids, history=history)
        found = {each.hubspot_id for each in contacts}
        found.update(old_id for each in contacts for old_id in each.merged_ids)
        self._missing.update(set(ids) - found)
        await self._absorb(contacts)

    async def follow_missing(self) -> None:
        """Finds out what has become of those of ours that were not shown."""
        rows = await self._mirror.db.fetch_all("known_contacts", {"hubspot_ids": sorted(self._missing)})
        gone = []
        for (hubspot_id,) in rows:
            contacts = await self._fetch([hubspot_id], history=False)
            if not contacts:
                contacts = await self._fetch([hubspot_id], history=False, archived=True)
            if contacts:
                self._missing.discard(hubspot_id)
                await self._absorb([replace(each, merged_ids=_with(each, hubspot_id)) for each in contacts])
            else:
                gone.append(hubspot_id)
        if gone:
            await self._mirror.db.fetch_all("mark_contacts_deleted", {"hubspot_ids": gone})

    def with_outcome(self, *wanted: Outcome) -> tuple[str, ...]:
        """The ids of the records of which one of these has become."""
        return tuple(hubspot_id for hubspot_id, outcome in self._outcomes.items() if outcome in wanted)

    def pulled(self) -> Pulled:
        """The sum of it."""
        return Pulled(
            read=len(self._outcomes),
            absorbed=len(self.with_outcome(Outcome.ABSORBED, Outcome.OLDER)),
            again=self.with_outcome(Outcome.NEED_HISTORY, Outcome.AGAIN),
            missing=tuple(sorted(self._missing)),
            errors=dict.fromkeys(
                self.with_outcome(Outcome.AHEAD),
                "HubSpot knows a later write of ours than this database: it was restored from a backup",
            ),
            absent=frozenset(self._absent),
        )

    async def _fetch(
        self, ids: Sequence[str], *, history: bool, archived: bool = False
    ) -> list[RemoteContact]:
        catalog = self._mirror.catalog
        records = await self._mirror.client.batch_read(
            CONTACTS,
            ids,
            properties=contact_properties(catalog),
            with_history=history_properties(catalog) if history else (),
            kind=self._kind,
            deadline_s=self._deadline_s,
            archived=archived,
        )
        within = await own_within(self._mirror.db) if history else SAME_TIME
        return [parse_contact(record, catalog, own_within=within) for record in records]

    async def _absorb(self, contacts: Sequence[RemoteContact]) -> None:
        if not contacts:
            return
        self._absent.update(*(self._asked_for - each.present for each in contacts))
        absorbed = await absorb_contacts(
            self._mirror.db,
            contacts,
            first_reason=self._first_reason,
            students_only=self._students_only,
        )
        self._outcomes.update((hubspot_id, each.outcome) for hubspot_id, each in absorbed.items())


def _with(contact: RemoteContact, hubspot_id: str) -> tuple[str, ...]:
    """The ids merged into a contact, and the one it was found by."""
    return tuple(dict.fromkeys((*contact.merged_ids, hubspot_id)))
