"""Checks the password of a local staff account."""

from __future__ import annotations

import asyncio
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from tallybook.domain.contacts import normalise_email
from tallybook.domain.errors import RateLimited, ValidationError
from tallybook.postgres.pool import Database


async def verify_staff(db: Database, email: str, password: str, address: str) -> bool:
    """Whether a local account has this e-mail and password; a failure counts against the address.

    Raises RateLimited after ten failures in a minute.
    """
    allowed = await db.fetch_one("may_sign_in", {"address": address})
    if allowed is None or not allowed[0]:
        raise RateLimited
    try:
        row = await db.fetch_one("find_staff", {"email": normalise_email(email)})
    except ValidationError:
        row = None
    if await asyncio.to_thread(_fits, None if row is None else str(row[2]), password):
        return True
    await db.fetch_all("count_login_failure", {"address": address})
    return False


@cache
def _nobodys_hash() -> str:
    return PasswordHasher().hash("nobody has this password")


def _fits(stored: str | None, password: str) -> bool:
    """Takes as long for an account that does not exist as for a wrong password."""
    try:
        PasswordHasher().verify(stored or _nobodys_hash(), password)
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None
