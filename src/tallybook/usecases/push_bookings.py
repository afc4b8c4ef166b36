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
from tallybook.usecases.ask_to_read import ask_to_read
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
    to_link = [(item, booking_id) for item, booking_id in to_link if item.id in settled]
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
        stop = await _link_all(make, associate, failures)
        if stop is None:
            left = [link for link in end if UUID(link.key) not in failures]
            # What is gone is associated with nothing.
            stop = await _link_all(left, separate, failures, unless=Fault.GONE)
        if stop is not None:
            # Doing what was done again does no harm; what matters is that nothing counts as done that is not.
            sent.stop = stop
            await claim.release(item.id for item, _ in items)
            return
    done: list[dict[str, object]] = [
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
    settled = await claim.confirm(done)
    # Somebody else held those at that moment; their associations are made, and noting it is all that is left.
    held = [item.id for item, _ in items if item.id not in settled and item.id not in failures]
    await claim.release(held, wait_s=0.1)
    await _read_ends(mirror, [item for item, _ in items if item.id in failures])
    await claim.fail(failures)


async def _read_ends(mirror: Mirror, items: Sequence[Planned]) -> None:
    """A contact or a session that cannot be associated was merged or deleted, perhaps: its id says so."""
    contacts = [item.contact_to for item in items if item.contact_to]
    exams = [item.mock_exam_to for item in items if item.mock_exam_to]
    for of, ids in ((MirroredType.CONTACT, contacts), (MirroredType.MOCK_EXAM, exams)):
        if ids:
            await ask_to_read(mirror.db, of, ids)


async def _link_all(
    links: Sequence[Link],
    send: Callable[[Sequence[Link]], Awaitable[WriteOutcome]],
    failures: dict[UUID, Failure],
    *,
    unless: Fault | None = None,
) -> Refusal | Unknown | None:
    """Sends all, halving what is refused; notes what failed, and gives what keeps the lane from going on.

    What fails for the reason `unless` has not failed.
    """
    parts = [list(links)] if links else []
    while parts:
        part = parts.pop()
        outcome = await send(part)
        if isinstance(outcome, Written):
            continue
        if isinstance(outcome, Unknown) or not outcome.fault.is_of_one_record:
            return outcome
        if len(part) > 1:
            middle = len(part) // 2
            parts += [part[middle:], part[:middle]]
        elif outcome.fault is not unless:
            failures[UUID(part[0].key)] = Failure(outcome.words)
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
