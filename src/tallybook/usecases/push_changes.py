"""Sends one claimed batch of a lane to HubSpot and says what became of each object in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from tallybook.domain.errors import CrmBusy, CrmUnavailable, SetupError
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.portal_shape import LaneShape, lane_shape
from tallybook.hubspot.write_results import Fault, Refusal
from tallybook.usecases.ask_to_read import ask_to_read
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.outbox import LINGER_S, Claim, Failure, Planned, Waiting, claim
from tallybook.usecases.pause_lane import pause_lane, why_unreadable
from tallybook.usecases.push_bookings import failure_of_booking, is_about_a_link, push_bookings
from tallybook.usecases.push_contacts import push_contacts
from tallybook.usecases.push_mock_exams import push_mock_exams
from tallybook.usecases.send_in_parts import PartsSent

_BUSY_S = 1.0
_LOCKED_S = 2.5
_UNSAID = "HubSpot did not say what became of it"


@dataclass(frozen=True, slots=True)
class PushResult:
    """How many objects were claimed, written, dead or failed for now; why the lane was paused, if it was.

    `wait_s`: nothing was to be sent, and after how long it is worth asking again, where that is known.
    """

    claimed: int = 0
    written: int = 0
    dead: int = 0
    failed: int = 0
    paused: str | None = None
    wait_s: float | None = None


Lane = Callable[[Mirror, Claim, LaneShape], Awaitable[PartsSent]]

# What others wait for comes first: a booking needs the ids of its contact and its session.
LANES: Mapping[MirroredType, Lane] = {
    MirroredType.CONTACT: push_contacts,
    MirroredType.MOCK_EXAM: push_mock_exams,
    MirroredType.BOOKING: push_bookings,
}


async def push_batch(mirror: Mirror, lane: MirroredType, *, linger: bool = True) -> PushResult:
    """One batch, read-back included; at once when not to `linger`. Never anything while only observing.

    Raises DatabaseUnavailable and the like; then leases end by themselves.
    """
    claimed = await claim_batch(mirror, lane, linger=linger)
    return claimed if isinstance(claimed, PushResult) else await push_claimed(mirror, claimed)


async def claim_batch(mirror: Mirror, lane: MirroredType, *, linger: bool = True) -> Claim | PushResult:
    """A batch to push, or the result of having none."""
    if mirror.observe:
        return PushResult()
    got = await claim(mirror.db, lane, linger_s=LINGER_S[lane] if linger else 0.0)
    return PushResult(wait_s=got.wait_s) if isinstance(got, Waiting) else got


async def push_claimed(mirror: Mirror, claimed: Claim) -> PushResult:
    """Sends what was claimed, and leaves every object confirmed, due again, waiting or dead."""
    try:
        shape = await lane_shape(mirror.client, claimed.lane, kind=CallKind.PUSH)
    except (CrmBusy, CrmUnavailable, SetupError) as error:
        await claimed.release(claimed.ids, wait_s=_BUSY_S)
        return await _conclude(
            mirror, claimed, PartsSent(stop=why_unreadable(error)), time_zone=mirror.time_zone
        )
    held = replace(claimed, skip=shape.read_only)
    sent = await LANES[claimed.lane](mirror, held, shape)
    return await _conclude(mirror, held, sent, time_zone=shape.time_zone or mirror.time_zone)


async def _conclude(mirror: Mirror, claimed: Claim, sent: PartsSent, *, time_zone: str) -> PushResult:
    failures: dict[UUID, Failure] = {}
    existing: list[UUID] = []
    not_applied: list[Planned] = []
    for item, refusal in sent.refused:
        failure = _failure_of(claimed.lane, item, refusal)
        if failure is None:
            existing.append(item.id)
        else:
            failures[item.id] = failure
            not_applied.append(item)
    await claimed.refuse(not_applied)
    await _read_what_is_gone(mirror, claimed.lane, sent)
    if sent.stop is None:
        failures |= {item.id: Failure(_UNSAID) for item in sent.unknown}
    else:
        await claimed.release(item.id for item in sent.unknown)
    dead = await claimed.fail(failures)
    await claimed.release(existing)
    is_busy = isinstance(sent.stop, Refusal) and sent.stop.fault is Fault.BUSY
    await claimed.release((item.id for item in sent.unsent), wait_s=_BUSY_S if is_busy else 0.0)
    paused = None
    if sent.stop is not None and not is_busy:
        paused = await pause_lane(mirror, claimed.lane, sent.stop, time_zone=time_zone)
    elif claimed.probing and not is_busy:
        has_written = bool(sent.written or sent.refused)
        await mirror.db.fetch_all("lane_works", {"lane": claimed.lane.value, "has_written": has_written})
    return PushResult(
        claimed=len(claimed.ids),
        written=len(sent.written),
        dead=dead,
        failed=len(failures) - dead,
        paused=paused,
    )


def _failure_of(lane: MirroredType, item: Planned, refusal: Refusal) -> Failure | None:
    if refusal.fault is Fault.LOCKED:
        return Failure(refusal.words, wait_s=_LOCKED_S)
    if lane is MirroredType.BOOKING:
        return failure_of_booking(item, refusal)
    return Failure(refusal.words, dead=refusal.fault in (Fault.RECORD, Fault.TAKEN))


async def _read_what_is_gone(mirror: Mirror, lane: MirroredType, sent: PartsSent) -> None:
    """A record that is not there was merged or deleted: reading its old id says which."""
    wanted: dict[MirroredType, list[str]] = {}
    for item, refusal in sent.refused:
        ids = {lane: item.hubspot_id} if refusal.fault is Fault.GONE else {}
        if lane is MirroredType.BOOKING and is_about_a_link(refusal):
            ids |= {MirroredType.CONTACT: item.contact_to, MirroredType.MOCK_EXAM: item.mock_exam_to}
        for of, id_ in ids.items():
            if id_ is not None:
                wanted.setdefault(of, []).append(id_)
    for of, hubspot_ids in wanted.items():
        await ask_to_read(mirror.db, of, hubspot_ids)
