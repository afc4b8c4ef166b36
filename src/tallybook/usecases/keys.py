"""API keys of applications, as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from tallybook.postgres.pool import Database


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A stored key; the secret itself is kept nowhere."""

    id: str
    name: str
    secret_hash: bytes
    scopes: tuple[str, ...]
    expires_at: datetime | None
    revoked_at: datetime | None


async def find_key(db: Database, key_id: str) -> KeyRecord | None:
    """The key with this id, also when it has expired or was revoked."""
    row = await db.fetch_one("find_api_key", {"id": key_id})
    if row is None:
        return None
    return KeyRecord(row[0], row[1], bytes(row[2]), tuple(row[3]), row[4], row[5])


async def list_keys(db: Database) -> list[dict[str, Any]]:
    """All keys, oldest first, also expired and revoked ones."""
    return [msgspec.json.decode(row[0], type=dict[str, Any]) for row in await db.fetch_all("list_api_keys")]


async def create_key(
    db: Database,
    *,
    key_id: str,
    name: str,
    secret_hash: bytes,
    scopes: Sequence[str],
    expires_at: datetime | None,
    actor: str,
) -> None:
    """Stores a new key."""
    await db.fetch_all(
        "create_api_key",
        {
            "id": key_id,
            "name": name,
            "secret_hash": secret_hash,
            "scopes": list(scopes),
            "expires_at": expires_at,
            "actor": actor,
        },
    )


async def revoke_key(db: Database, *, key_id: str, actor: str) -> bool:
    """Revokes a key; False when there is none with this id."""
    return await db.fetch_one("revoke_api_key", {"id": key_id, "actor": actor}) is not None
