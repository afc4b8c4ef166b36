"""What staff may do: one table, which the API, the pages and the tests read alike."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class StaffRole(StrEnum):
    """What a staff member may do, each role everything the ones before it may."""

    VIEWER = "viewer"
    COORDINATOR = "coordinator"
    ADMIN = "admin"
    SUPER_ADMIN = "super_admin"


class Permission(StrEnum):
    """Something that not everybody of the staff may do."""

    SEE_MIRROR = "see_mirror"
    REFRESH_CONTACT = "refresh_contact"
    RETRY_LETTER = "retry_letter"
    RESOLVE_CONFLICT = "resolve_conflict"
    DISCARD_LETTER = "discard_letter"
    RESUME_LANE = "resume_lane"
    RECONCILE = "reconcile"


POLICY: Mapping[Permission, StaffRole] = {
    Permission.SEE_MIRROR: StaffRole.VIEWER,
    Permission.REFRESH_CONTACT: StaffRole.COORDINATOR,
    Permission.RETRY_LETTER: StaffRole.COORDINATOR,
    Permission.RESOLVE_CONFLICT: StaffRole.COORDINATOR,
    # These give something up, or use the calls of everybody.
    Permission.DISCARD_LETTER: StaffRole.ADMIN,
    Permission.RESUME_LANE: StaffRole.ADMIN,
    Permission.RECONCILE: StaffRole.ADMIN,
}
"""The least role that may."""

_RANKS = tuple(StaffRole)


def may(role: StaffRole, permission: Permission) -> bool:
    """Whether a person of this role may do that."""
    return _RANKS.index(role) >= _RANKS.index(POLICY[permission])
