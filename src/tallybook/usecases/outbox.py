"""The outbox as a push sees it: what it has claimed, and what it says about each object in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.write_results import WrittenRecord
from tallybook.postgres.pool import Database

BATCH_SIZE = 100
LEASE_S = 60.0
MOST_ATTEMPTS = 12
LINGER_S = {MirroredType.BOOKING: 1.0, MirroredType.CONTACT: 1.0, MirroredType.MOCK_EXAM: 2.0}

_NAMES = {
    MirroredType.BOOKING: "bookings",
    MirroredType.CONTACT: "contacts",
    MirroredType.MOCK_EXAM: "mock_exams",
}


# The action by which an object is marked as written with an outcome not known yet.
_MARKING = {MirroredType.BOOKING: "create", MirroredType.CONTACT: "update"}


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent about one object; of a booking also the records to associate with, and the old."""

    id: UUID
    version: int
    attempts: int
    action: str
    hubspot_id: str | None = None
    properties: dict[str, str | None] = {}
    contact_to: str | None = None
    contact_from: str | None = None
    mock_exam_to: str | None = None
    mock_exams_from: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """By what the object is called in a batch."""
        return str(self.id)


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed; `dead`: it would fail again."""

    words: str
    dead: bool = False
    wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """Objects of one lane under a lease of ours; `probing`: the lane is paused and this one goes ahead."""

    db: Database
    lane: MirroredType
    token: UUID
    ids: tuple[UUID, ...]
    probing: bool
    skip: tuple[str, ...] = ()

    async def prepare(self, ids: Iterable[UUID]) -> list[Planned]:
        """What is to be sent now, marked as sent. What is not in the answer is no longer ours to send."""
        params = self._params(ids=list(ids), skip=list(self.skip))
        row = await self.db.fetch_one(f"prepare_{_NAMES[self.lane]}", params)
        assert row is not None
        return msgspec.json.decode(row[0], type=list[Planned])

    async def refuse(self, items: Iterable[Planned]) -> None:
        """What was sent, or would have been, was not applied: the marks it left go."""
        marked = [item.id for item in items if item.action == _MARKING.get(self.lane)]
        if marked:
            await self.db.fetch_all(f"refuse_{_NAMES[self.lane]}", self._params(ids=marked))

    async def confirm(self, rows: Sequence[Mapping[str, Any]]) -> frozenset[UUID]:
        """HubSpot has it; the ids of those settled. What was not is held by somebody else at this moment."""
        if not rows:
            return frozenset()
        params = self._params(rows=_json(rows), skip=list(self.skip))
        row = await self.db.fetch_one(f"confirm_{_NAMES[self.lane]}", params)
        assert row is not None
        return frozenset(row[0])

    async def release(self, ids: Iterable[UUID], *, wait_s: float = 0.0) -> None:
        """Gives objects back; no attempt is used up."""
        wanted = list(ids)
        if wanted:
            await self.db.fetch_all("release_outbox", self._params(ids=wanted, wait_s=wait_s))

    async def fail(self, failures: Mapping[UUID, Failure]) -> int:
        """Later again, or dead; the number of the dead."""
        if not failures:
            return 0
        rows = [
            {"id": id_, "words": each.words, "dead": each.dead}
            | ({} if each.wait_s is None else {"wait_s": each.wait_s})
            for id_, each in failures.items()
        ]
        params = self._params(rows=_json(rows), attempts=MOST_ATTEMPTS)
        row = await self.db.fetch_one("fail_outbox", params)
        return int(row[0]) if row else 0

    def _params(self, **more: Any) -> dict[str, Any]:
        return {"lane": self.lane.value, "token": self.token, **more}


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing is to be sent now. `wait_s`: when it is worth asking again, where that is known."""

    wait_s: float | None


async def claim(
    db: Database, lane: MirroredType, *, linger_s: float, limit: int = BATCH_SIZE
) -> Claim | Waiting:
    """Leases what waits in a lane, once there is enough of it or it has waited long enough."""
    token = uuid4()
    row = await db.fetch_one(
        "claim_outbox",
        {"lane": lane.value, "token": token, "limit": limit, "linger_s": linger_s, "lease_s": LEASE_S},
    )
    assert row is not None
    ids, probing, wait_s = row
    return Claim(db, lane, token, tuple(ids), probing) if ids else Waiting(wait_s)


def confirmation(planned: Planned, record: WrittenRecord, **more: Any) -> dict[str, Any]:
    """What is kept of a record that was written."""
    return {
        "id": planned.id,
        "version": planned.version,
        "hubspot_id": planned.hubspot_id or record.id,
        "updated_at": _instant(record.updated_at),
        "properties": planned.properties,
        **more,
    }


def _instant(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    return msgspec.json.encode(rows).decode()
