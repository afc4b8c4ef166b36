"""Stores local staff accounts, whose passwords only their argon2 hashes know."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
from argon2 import PasswordHasher

from tallybook.domain.contacts import normalise_email
from tallybook.domain.errors import ValidationError
from tallybook.domain.staff import StaffRole
from tallybook.postgres.pool import Database

_SHORTEST_PASSWORD = 12
_LONGEST_PASSWORD = 1024


@dataclass(frozen=True, slots=True)
class StaffAccount:
    """The stored account; `is_new` is false when the e-mail had one already."""

    id: str
    email: str
    is_new: bool


async def create_staff(
    db: Database, *, email: str, name: str | None, role: StaffRole, password: str, actor: str
) -> StaffAccount:
    """Stores an account; one that exists gets this role and password, and its sessions end.

    Raises ValidationError.
    """
    email = normalise_email(email)
    if not _SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise ValidationError(
            f"The password must have at least {_SHORTEST_PASSWORD} characters.", field="password"
        )
    row = await db.fetch_one(
        "create_staff",
        {
            "email": email,
            "name": name,
            "role": role.value,
            # Hashing takes a noticeable part of a second on purpose.
            "password_hash": await asyncio.to_thread(PasswordHasher().hash, password),
            "actor": actor,
        },
    )
    assert row is not None
    return StaffAccount(str(row[0]), email, is_new=bool(row[1]))


async def list_staff(db: Database) -> list[dict[str, Any]]:
    """All staff accounts, without their passwords' hashes."""
    return [msgspec.json.decode(row[0], type=dict[str, Any]) for row in await db.fetch_all("list_staff")]
