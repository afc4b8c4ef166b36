"""Checks the password of a local staff account."""

from __future__ import annotations

from tallybook.domain.errors import LoginFailed
from tallybook.postgres.pool import Database
from tallybook.usecases.sign_in_staff import sign_in_staff


async def verify_staff(db: Database, email: str, password: str, address: str) -> bool:
    """Whether a local account has this e-mail and password; a failure counts against the address.

    Raises RateLimited after ten failures in a minute.
    """
    try:
        await sign_in_staff(db, email=email, password=password, address=address)
    except LoginFailed:
        return False
    return True
