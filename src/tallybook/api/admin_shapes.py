"""What `data` holds in the answers for staff, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from tallybook.api.answer_shapes import HubSpotId, Instant

Seconds = Annotated[float, Meta(ge=0, description="Seconds.")]
ObjectKind = Literal["contact", "mock_exam", "booking"]
Lane = Literal["booking", "contact", "mock_exam", "pull"]


class StaffSession(Struct):
    """A token, and whom it stands for."""

    token: str
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Meta(description="Seconds.")]
    expires_at: Instant
    id: UUID
    email: str
    name: str | None
    role: Literal["viewer", "coordinator", "admin", "super_admin"]


class Pause(Struct):
    """Why a lane is paused, in our word and in HubSpot's, and when it tries again by itself."""

    since: Instant
    reason: str
    words: str | None
    resume_at: Instant | None


class LaneState(Struct):
    """One direction of traffic. `pull` counts hints that wait, the others changes."""

    lane: Lane
    waiting: int
    under_way: int
    oldest_s: Seconds
    p95_s: Seconds | None
    dead_letters: int
    paused: Pause | None


class ConflictCount(Struct):
    """Open conflicts of one kind."""

    object_type: ObjectKind
    kind: str
    open: int
    frozen: int
    oldest_s: Seconds


class ConflictCounts(Struct):
    """Open conflicts."""

    open: int
    by_kind: list[ConflictCount]


class CallCounts(Struct):
    """Calls to HubSpot of one kind, by all processes: slots in use now, and all since they are counted."""

    kind: str
    in_use: int
    searches_in_use: int
    calls: int
    throttled: Annotated[int, Meta(description="Answered with 429.")]
    throttled_at: Instant | None


class Pulled(Struct):
    """How far searching for changes has come: up to `complete_to`, null while the first pass lasts."""

    object_type: ObjectKind
    complete_to: Instant | None
    behind_s: Seconds | None


class OpenAlert(Struct):
    """Something that passed its limit."""

    kind: str
    subject: str
    since: Instant
    details: dict[str, Any]


class SyncStatus(Struct):
    """How the mirror stands."""

    as_of: Instant
    lanes: list[LaneState]
    conflicts: ConflictCounts
    budget: list[CallCounts]
    pulled: list[Pulled]
    hold: Annotated[dict[str, Any] | None, Meta(description="Why all pushing is stopped.")]
    portal: dict[str, Any] | None
    alerts: list[OpenAlert]


class SyncConflict(Struct):
    """What could not be merged: both values, and where."""

    id: int
    object_type: ObjectKind
    object_id: UUID
    hubspot_id: HubSpotId
    label: str | None
    field: str
    kind: str
    ours: str | None
    theirs: str | None
    details: dict[str, Any]
    freezes: Annotated[bool, Meta(description="Neither side's value is passed on until it is resolved.")]
    opened_at: Instant
    resolved_at: Instant | None
    resolved_by: str | None
    resolution: str | None
    idempotent: Annotated[bool | UnsetType, Meta(description="True when it was resolved so before.")] = UNSET


class SyncConflicts(Struct):
    """One page of conflicts, the oldest first."""

    conflicts: list[SyncConflict]
    page: int
    total: int


class DeadLetter(Struct):
    """What HubSpot refuses, in its own words, or what could not be read from it (`inbox`)."""

    type: Literal["contact", "mock_exam", "booking", "inbox"]
    id: str
    object_type: ObjectKind
    object_id: UUID | None
    hubspot_id: HubSpotId
    label: str | None
    words: str | None
    attempts: int
    changed_at: Instant
    dead_at: Instant


class DeadLetters(Struct):
    """One page of dead letters, the oldest first."""

    dead_letters: list[DeadLetter]
    page: int
    total: int


class Retried(Struct):
    """How many will be tried again."""

    retried: int


class Discarded(Struct):
    """What was given up, and what HubSpot had said."""

    type: Literal["contact", "mock_exam", "booking", "inbox"]
    id: str
    words: str | None


class Resumed(Struct):
    """The lane that goes on; `reason` is why it had paused."""

    lane: Lane
    reason: str | UnsetType = UNSET
    idempotent: Annotated[bool | UnsetType, Meta(description="True when it was not paused.")] = UNSET
