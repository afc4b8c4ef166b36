"""Tells HubSpot of bookings: new ones with both associations at once, others by what has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from uuid import UUID

from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.fields import ID_PROPERTY
from tallybook.hubspot.portal_shape import LaneShape
from tallybook.hubspot.records import AssociationType
from tallybook.hubspot.write_results import Fault, Refusal, Unknown, WriteOutcome, Written, WrittenRecord
from tallybook.hubspot.writes import Association, Link, RecordWrite
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.outbox import Claim, Failure, Planned, confirmation
from tallybook.usecases.send_in_parts import PartsSent, send_in_parts

SLOT_WAIT_S = 20.0


async def push_bookings(mirror: Mirror, claim: Claim, shape: LaneShape) -> PartsSent:
    """Sends what is claimed and confirms what HubSpot has taken."""
    planned = await claim.prepare(claim.ids)
    sent = PartsSent()
    for action, send in (
        ("create", partial(_create, mirror, shape)),
        ("upsert", partial(_upsert, mirror)),
        ("update", partial(_update, mirror)),
    ):
        items = [item for item in planned if item.action == action]
        if sent.stop is not None:
            await claim.refuse(items)
            sent.unsent += items
        else:
            sent.add(await send_in_parts(claim, items, send))
    await _confirm(mirror, claim, shape, sent)
    return sent


async def _create(mirror: Mirror, shape: LaneShape, items: Sequence[Planned]) -> WriteOutcome:
    assert shape.to_contact is not None
    assert shape.to_mock_exam is not None
    records = [
        RecordWrite(
            item.key,
            item.properties,
            associations=(
                Association(str(item.contact_to), shape.to_contact),
                Association(str(item.mock_exam_to), shape.to_mock_exam),
            ),
        )
        for item in items
    ]
    return await mirror.client.batch_create(
        mirror.crm_type(MirroredType.BOOKING), records, kind=CallKind.PUSH, wait_s=SLOT_WAIT_S
    )


async def _upsert(mirror: Mirror, items: Sequence[Planned]) -> WriteOutcome:
    return await mirror.client.batch_upsert(
        mirror.crm_type(MirroredType.BOOKING),
        [RecordWrite(item.key, item.properties, id=item.key) for item in items],
        id_property=ID_PROPERTY,
        kind=CallKind.PUSH,
        wait_s=SLOT_WAIT_S,
    )


async def _update(mirror: Mirror, items: Sequence[Planned]) -> WriteOutcome:
    """Where only an association has changed there is nothing to write."""
    records = [
        RecordWrite(item.key, item.properties, id=item.hubspot_id) for item in items if item.properties
    ]
    untouched = {item.key: WrittenRecord(str(item.hubspot_id)) for item in items if not item.properties}
    if not records:
        return Written(untouched)
    outcome = await mirror.client.batch_update(
        mirror.crm_type(MirroredType.BOOKING), records, kind=CallKind.PUSH, wait_s=SLOT_WAIT_S
    )
    if isinstance(outcome, Written):
        return Written({**outcome.records, **untouched}, outcome.refusals)
    return outcome


async def _confirm(mirror: Mirror, claim: Claim, shape: LaneShape, sent: PartsSent) -> None:
    """New bookings have their associations; those of others are made before the outbox forgets them."""
    rows = []
    to_link: list[tuple[Planned, str]] = []
    for item, record in sent.written:
        is_linked = item.action == "create"
        if not is_linked and (item.contact_to or item.mock_exam_to):
            to_link.append((item, item.hubspot_id or record.id))
            rows.append(confirmation(item, record, settle=False))
        else:
            links = {"contact_to": item.contact_to, "mock_exam_to": item.mock_exam_to}
            rows.append(confirmation(item, record, **links))
    settled = await claim.confirm(rows)
    left = [item.id for item, _ in sent.written if item.id not in settled]
    await claim.release(left, wait_s=0.1)
    if to_link:
        await _link(mirror, claim, shape, to_link, sent)


async def _link(
    mirror: Mirror, claim: Claim, shape: LaneShape, items: Sequence[tuple[Planned, str]], sent: PartsSent
) -> None:
    """Makes the associations that are missing, then ends those that no longer hold."""
    failures: dict[UUID, Failure] = {}
    sides: Sequence[
        tuple[MirroredType, AssociationType | None, Callable[[Planned], tuple[str | None, tuple[str, ...]]]]
    ]
    sides = (
        (
            MirroredType.CONTACT,
            shape.to_contact,
            lambda item: (item.contact_to, (item.contact_from,) if item.contact_from else ()),
        ),
        (MirroredType.MOCK_EXAM, shape.to_mock_exam, lambda item: (item.mock_exam_to, item.mock_exams_from)),
    )
    own = mirror.crm_type(MirroredType.BOOKING)
    for side, kind, ends in sides:
        other = mirror.crm_type(side)
        assert kind is not None
        make, end = [], []
        for item, booking_id in items:
            to, since = ends(item)
            if to is not None:
                make.append(Link(item.key, booking_id, to))
                end += [Link(item.key, booking_id, each) for each in since]
        associate = partial(
            mirror.client.associate, own, other, type=kind, kind=CallKind.PUSH, wait_s=SLOT_WAIT_S
        )
        separate = partial(mirror.client.separate, own, other, kind=CallKind.PUSH, wait_s=SLOT_WAIT_S)
        for links, send in ((make, associate), (end, separate)):
            good = [link for link in links if UUID(link.key) not in failures]
            stop = await _link_all(good, send, failures)
            sent.stop = sent.stop or stop
    settled = await claim.confirm(
        [
            {
                "id": item.id,
                "version": item.version,
                "hubspot_id": booking_id,
                "properties": {},
                "contact_to": item.contact_to,
                "mock_exam_to": item.mock_exam_to,
            }
            for item, booking_id in items
            if item.id not in failures
        ]
    )
    # Somebody else held those at that moment; their associations are made, and noting it is all that is left.
    await claim.release(
        (item.id for item, _ in items if item.id not in settled and item.id not in failures), wait_s=0.1
    )
    await claim.fail(failures)


async def _link_all(
    links: Sequence[Link],
    send: Callable[[Sequence[Link]], Awaitable[WriteOutcome]],
    failures: dict[UUID, Failure],
) -> Refusal | Unknown | None:
    """Sends all, halving what is refused; notes what failed. Doing it again later does no harm."""
    parts = [list(links)] if links else []
    while parts:
        part = parts.pop()
        outcome = await send(part)
        if isinstance(outcome, Written):
            continue
        is_one = isinstance(outcome, Refusal) and outcome.fault.is_of_one_record
        if is_one and len(part) > 1:
            middle = len(part) // 2
            parts += [part[middle:], part[:middle]]
            continue
        failures.update({UUID(link.key): Failure(outcome.words) for link in part})
        if not is_one:
            failures.update(
                {UUID(link.key): Failure(outcome.words, wait_s=1.0) for rest in parts for link in rest}
            )
            return outcome
    return None


def failure_of_booking(item: Planned, refusal: Refusal) -> Failure | None:
    """What a refusal means for a booking; None: it exists already, so it is written by its id next."""
    if refusal.fault is Fault.TAKEN and item.action == "create":
        return None
    will_not_pass = refusal.fault in (Fault.RECORD, Fault.TAKEN) and not is_about_a_link(refusal)
    return Failure(refusal.words, dead=will_not_pass)


def is_about_a_link(refusal: Refusal) -> bool:
    """Whether the contact or the session is the reason: it may have been merged or deleted a moment ago."""
    return refusal.fault in (Fault.RECORD, Fault.GONE) and "association" in refusal.words.lower()
