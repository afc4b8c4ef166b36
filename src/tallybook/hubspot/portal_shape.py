"""What one portal lets us write, and how its associations are called: asked once, remembered for a while."""

from __future__ import annotations

import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from tallybook.domain.errors import CrmBusy, CrmUnavailable, SetupError
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import HubSpotClient
from tallybook.hubspot.records import AssociationType

_KEPT_S = 600.0
_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class LaneShape:
    """What is never sent because HubSpot calculates it or lets nobody write it; how a booking is associated.

    `time_zone` is the portal's, in which its day of calls ends.
    """

    read_only: tuple[str, ...]
    time_zone: str | None
    to_contact: AssociationType | None = None
    to_mock_exam: AssociationType | None = None


_known: WeakKeyDictionary[HubSpotClient, dict[MirroredType, tuple[float, LaneShape]]] = WeakKeyDictionary()


async def lane_shape(client: HubSpotClient, lane: MirroredType, *, kind: CallKind) -> LaneShape:
    """The shape of what a lane writes. Raises CrmBusy, CrmUnavailable, SetupError."""
    known = _known.setdefault(client, {})
    until, shape = known.get(lane, (0.0, None))
    if shape is None or time.monotonic() > until:
        shape = await _read(client, lane, kind=kind)
        known[lane] = (time.monotonic() + _KEPT_S, shape)
    return shape


async def never_sent(client: HubSpotClient, lane: MirroredType, *, kind: CallKind) -> tuple[str, ...]:
    """The properties of a lane that nobody can write; none where HubSpot does not answer."""
    try:
        return (await lane_shape(client, lane, kind=kind)).read_only
    except (CrmBusy, CrmUnavailable, SetupError):
        return ()


def forget_shape(client: HubSpotClient, lane: MirroredType) -> None:
    """The portal is not as it was: the next one to ask reads it again."""
    _known.get(client, {}).pop(lane, None)


async def _read(client: HubSpotClient, lane: MirroredType, *, kind: CallKind) -> LaneShape:
    object_type = client.connection.object_type(lane)
    properties = await client.list_properties(object_type, kind=kind, deadline_s=_DEADLINE_S)
    read_only = tuple(each.name for each in properties if each.is_read_only)
    account = await client.account_details(kind=kind, deadline_s=_DEADLINE_S)
    if lane is not MirroredType.BOOKING:
        return LaneShape(read_only, account.time_zone)
    return LaneShape(
        read_only,
        account.time_zone,
        to_contact=await _plain(client, object_type, MirroredType.CONTACT, kind=kind),
        to_mock_exam=await _plain(client, object_type, MirroredType.MOCK_EXAM, kind=kind),
    )


async def _plain(
    client: HubSpotClient, from_type: str, to: MirroredType, *, kind: CallKind
) -> AssociationType:
    """The association without a label."""
    to_type = client.connection.object_type(to)
    types = await client.association_types(from_type, to_type, kind=kind, deadline_s=_DEADLINE_S)
    plain = [each for each in types if each.label is None] or list(types)
    if not plain:
        raise SetupError(
            f"HubSpot has no association from {from_type} to {to_type}.",
            hint="Let bookings be associated with contacts and mock exams in HubSpot's data model.",
        )
    return plain[0]
