"""Reads contacts from HubSpot and merges them; asks for histories only where they decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tallybook.domain.mirror import Outcome
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import BATCH_SIZE, HISTORY_BATCH_SIZE
from tallybook.hubspot.connection import CONTACTS
from tallybook.hubspot.fields import contact_properties, history_properties, parse_contact
from tallybook.hubspot.records import Record
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.mirror import Mirror, Pulled


@dataclass(slots=True)
class _Progress:
    """What one pull has brought so far."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def with_outcome(self, *wanted: Outcome) -> tuple[str, ...]:
        return tuple(hubspot_id for hubspot_id, outcome in self.outcomes.items() if outcome in wanted)

    def pulled(self) -> Pulled:
        return Pulled(
            read=len(self.outcomes),
            absorbed=len(self.with_outcome(Outcome.ABSORBED, Outcome.OLDER)),
            again=self.with_outcome(Outcome.NEED_HISTORY, Outcome.AGAIN),
            missing=tuple(self.missing),
            errors=dict.fromkeys(
                self.with_outcome(Outcome.AHEAD),
                "HubSpot knows a later write of ours than this database: it was restored from a backup",
            ),
        )


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
    student ID are merged only when they are stored already. Raises CrmBusy, CrmUnavailable, SetupError,
    DatabaseUnavailable; what was absorbed until then stays.
    """
    wanted = tuple(dict.fromkeys(hubspot_ids))
    progress = _Progress()

    async def read(ids: Sequence[str], *, history: bool) -> None:
        records = await mirror.client.batch_read(
            CONTACTS,
            ids,
            properties=contact_properties(mirror.catalog),
            with_history=history_properties(mirror.catalog) if history else (),
            kind=kind,
            deadline_s=deadline_s,
        )
        progress.missing += sorted(set(ids) - {record.id for record in records})
        await absorb(records)

    async def absorb(records: Sequence[Record]) -> None:
        if not records:
            return
        absorbed = await absorb_contacts(
            mirror.db,
            [parse_contact(record, mirror.catalog) for record in records],
            first_reason=first_reason,
            students_only=students_only,
        )
        progress.outcomes.update((hubspot_id, each.outcome) for hubspot_id, each in absorbed.items())

    if not with_history:
        for start in range(0, len(wanted), BATCH_SIZE):
            await read(wanted[start : start + BATCH_SIZE], history=False)
        wanted = progress.with_outcome(Outcome.NEED_HISTORY)
    for start in range(0, len(wanted), HISTORY_BATCH_SIZE):
        await read(wanted[start : start + HISTORY_BATCH_SIZE], history=True)
    return progress.pulled()
