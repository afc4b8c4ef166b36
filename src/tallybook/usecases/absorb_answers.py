"""What absorbing mock exams and bookings has in common: batches, and what became of each answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from tallybook.domain.mirror import Outcome
from tallybook.hubspot.client import BATCH_SIZE
from tallybook.postgres.pool import Database
from tallybook.usecases.mirror import Pulled

NEED = "need"
"""Something has to be read or computed before the answer can be absorbed; `Taken.need` says what."""

_DONE = frozenset((Outcome.ABSORBED, Outcome.OLDER))


class Taken(NamedTuple):
    """What became of one answer: an `Outcome` or NEED, and our object where there is one."""

    hubspot_id: str
    object_id: UUID | None
    outcome: str
    note: str | None
    need: dict[str, Any]


async def absorb_answers(
    db: Database, of: str, answers: Sequence[dict[str, Any]], *, importing: bool = False
) -> list[Taken]:
    """Absorbs answers about `of` (mock_exams or bookings), a hundred in a transaction."""
    taken: list[Taken] = []
    for start in range(0, len(answers), BATCH_SIZE):
        batch = answers[start : start + BATCH_SIZE]
        rows = await db.fetch_all(f"confirm_equal_{of}", {"records": _json(batch)})
        equal = {hubspot_id for (hubspot_id,) in rows}
        taken += [Taken(hubspot_id, None, Outcome.ABSORBED, None, {}) for hubspot_id in equal]
        left = [answer for answer in batch if answer["hubspot_id"] not in equal]
        if left:
            rows = await db.fetch_all(f"absorb_{of}", {"records": _json(left), "importing": importing})
            taken += [
                Taken(hubspot_id, object_id, outcome, note, msgspec.json.decode(need) if need else {})
                for hubspot_id, object_id, outcome, note, need in rows
            ]
    return taken


def gone(hubspot_id: str) -> dict[str, Any]:
    """The answer about a record HubSpot no longer has."""
    return {
        "hubspot_id": hubspot_id,
        "tallybook_id": None,
        "updated_at": None,
        "archived": True,
        "texts": {},
        "problems": (),
    }


def pulled(taken: Iterable[Taken], *, read: int) -> Pulled:
    """The same as counts, ids to read again, and a text for each that could not be taken."""
    everything = list(taken)
    return Pulled(
        read=read,
        absorbed=sum(each.outcome in _DONE for each in everything),
        again=tuple(each.hubspot_id for each in everything if each.outcome in (NEED, Outcome.AGAIN)),
        errors={
            each.hubspot_id: each.note or each.outcome
            for each in everything
            if each.outcome == Outcome.NOT_STORED
        },
    )


def together(parts: Iterable[Pulled]) -> Pulled:
    """Several of them as one."""
    total = Pulled()
    for part in parts:
        total = Pulled(
            read=total.read + part.read,
            absorbed=total.absorbed + part.absorbed,
            again=(*total.again, *part.again),
            missing=(*total.missing, *part.missing),
            errors={**total.errors, **part.errors},
        )
    return total


def _json(answers: Sequence[dict[str, Any]]) -> str:
    return msgspec.json.encode(answers).decode()
