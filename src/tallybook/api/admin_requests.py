"""What the addresses for staff take."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType

from tallybook.api.reading import Shape
from tallybook.api.requests import Email, PageNumber, PageSize
from tallybook.domain.mirror import MirroredType
from tallybook.usecases.list_dead_letters import LetterType
from tallybook.usecases.reasons import LONGEST_REASON
from tallybook.usecases.resolve_conflict import LONGEST_VALUE

WhyNot = Annotated[
    str, Meta(min_length=1, max_length=LONGEST_REASON, description="Why; kept in the audit log.")
]


class StaffLoginBody(Shape, frozen=True, kw_only=True):
    """A local staff account."""

    email: Email
    password: Annotated[str, Meta(min_length=1, max_length=1024)]


class NoBody(Shape, frozen=True, kw_only=True):
    """Nothing."""


class ConflictsQuery(Shape, frozen=True, kw_only=True):
    """Which conflicts, and which page of them."""

    # Not None: in a query string that would let `null` pass for a word of the list.
    object_type: MirroredType | UnsetType = UNSET
    kind: Annotated[str, Meta(min_length=1, max_length=40, examples=["below_zero"])] | None = None
    resolved: Annotated[bool, Meta(description="Also those that are resolved.")] = False
    page: PageNumber = 1
    limit: PageSize = 50


class LettersQuery(Shape, frozen=True, kw_only=True):
    """Which dead letters, and which page of them."""

    type: LetterType | UnsetType = UNSET
    page: PageNumber = 1
    limit: PageSize = 50


class ResolveBody(Shape, frozen=True, kw_only=True):
    """Which value holds from now on, on both sides."""

    multiline: ClassVar[frozenset[str]] = frozenset(("reason",))

    choice: Literal["ours", "theirs", "value", "dismiss"]
    value: (
        Annotated[str, Meta(max_length=LONGEST_VALUE, description="With the choice `value`: which.")] | None
    ) = None
    reason: WhyNot


class DiscardBody(Shape, frozen=True, kw_only=True):
    """Give something up."""

    multiline: ClassVar[frozenset[str]] = frozenset(("reason",))

    reason: WhyNot


class ReconcileBody(Shape, frozen=True, kw_only=True):
    """How long to compare, and whether to put right what differs."""

    max_s: Annotated[float, Meta(ge=1, le=50)] = 20.0
    repair: bool = False
