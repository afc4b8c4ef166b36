"""Signs local staff accounts in and out, and says at each request what they may do now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cache
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from tallybook.domain.contacts import normalise_email
from tallybook.domain.errors import LoginFailed, RateLimited, Unauthenticated, ValidationError
from tallybook.domain.staff import StaffRole
from tallybook.postgres.pool import Database

CALLS_PER_MIN = 300


@dataclass(frozen=True, slots=True)
class SignedInStaff:
    """A staff account whose password was right. `epoch` is part of its token."""

    id: UUID
    role: StaffRole
    epoch: int
    email: str
    name: str | None


async def sign_in_staff(db: Database, *, email: str, password: str, address: str) -> SignedInStaff:
    """The account with this e-mail and password; a failure counts against the address.

    Raises LoginFailed, and RateLimited after ten failures in a minute, which are counted apart from those of
    students. Takes as long for an account that does not exist as for a wrong password.
    """
    counted = {"address": f"staff:{address}"}
    allowed = await db.fetch_one("may_sign_in", counted)
    if allowed is None or not allowed[0]:
        raise RateLimited
    try:
        row = await db.fetch_one("find_staff", {"email": normalise_email(email)})
    except ValidationError:
        row = None
    if not await asyncio.to_thread(_fits, None if row is None else str(row[2]), password) or row is None:
        await db.fetch_all("count_login_failure", counted)
        raise LoginFailed
    staff_id, role, _, epoch, stored_email, name = row
    return SignedInStaff(staff_id, StaffRole(role), epoch, stored_email, name)


async def admit_staff(db: Database, staff_id: UUID, epoch: int) -> StaffRole:
    """The role of an account at this moment.

    Raises Unauthenticated when it was disabled, signed out or changed since its token was made, and
    RateLimited.
    """
    row = await db.fetch_one(
        "admit_staff", {"staff_id": staff_id, "epoch": epoch, "limit_per_min": CALLS_PER_MIN}
    )
    if row is None:
        raise Unauthenticated("Your session has ended. Please sign in again.")
    role, allowed = row
    if not allowed:
        raise RateLimited
    return StaffRole(role)


async def sign_out_staff(db: Database, staff_id: UUID) -> None:
    """Ends all sessions of an account."""
    await db.fetch_all("end_staff_sessions", {"staff_id": staff_id})


@cache
def _nobodys_hash() -> str:
    return PasswordHasher().hash("nobody has this password")


def _fits(stored: str | None, password: str) -> bool:
    try:
        PasswordHasher().verify(stored or _nobodys_hash(), password)
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None
