"""API keys of applications: `tb_<id>_<secret>`. A verified one is remembered for a minute.

While the database is down it stays good for ten, so that what needs no database goes on.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Protocol

from tallybook.api.secrets import hash_api_secret
from tallybook.domain.callers import Caller, CallerKind
from tallybook.domain.errors import DatabaseUnavailable, Unauthenticated

_KEY = re.compile(r"tb_([A-Za-z0-9]{1,32})_([A-Za-z0-9_-]{16,128})", re.ASCII)
_REMEMBERED_FOR = timedelta(seconds=60)
_TRUSTED_WITHOUT_DATABASE_FOR = timedelta(minutes=10)
_MOST_REMEMBERED = 1_000


class KeyRecord(Protocol):
    """A stored key. `secret_hash` is `hash_api_secret` of it."""

    @property
    def secret_hash(self) -> bytes: ...
    @property
    def scopes(self) -> Collection[str]: ...
    @property
    def expires_at(self) -> datetime | None: ...
    @property
    def revoked_at(self) -> datetime | None: ...


FindKey = Callable[[str], Awaitable[KeyRecord | None]]


@dataclass(slots=True)
class _Verified:
    caller: Caller
    verified_at: datetime
    expires_at: datetime | None


class ApiKeys:
    """Verifies API keys against the stored hashes."""

    def __init__(
        self, secret_key: str, *, previous: str | None, find_key: FindKey, clock: Callable[[], datetime]
    ) -> None:
        self._secrets = [secret for secret in (secret_key, previous) if secret is not None]
        self._find_key = find_key
        self._clock = clock
        self._verified: dict[bytes, _Verified] = {}
        self._looking_up: dict[str, asyncio.Future[KeyRecord | None]] = {}

    @staticmethod
    def is_key(token: str) -> bool:
        """Whether the token claims to be an API key."""
        return token.startswith("tb_")

    async def verify(self, token: str) -> Caller:
        """The application that shows this key. Raises Unauthenticated, DatabaseUnavailable."""
        now = self._clock()
        digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._verified.get(digest)
        if known is not None:
            if known.expires_at is not None and known.expires_at <= now:
                del self._verified[digest]
                raise Unauthenticated
            if now - known.verified_at < _REMEMBERED_FOR:
                return known.caller
        try:
            fresh = await self._verify_now(token, now)
        except DatabaseUnavailable:
            if known is not None and now - known.verified_at < _TRUSTED_WITHOUT_DATABASE_FOR:
                return known.caller
            raise
        except Unauthenticated:
            self._verified.pop(digest, None)
            raise
        self._verified.pop(digest, None)
        while len(self._verified) >= _MOST_REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = fresh
        return fresh.caller

    async def _verify_now(self, token: str, now: datetime) -> _Verified:
        parts = _KEY.fullmatch(token)
        if parts is None:
            raise Unauthenticated
        key_id, secret = parts.groups()
        record = await self._look_up(key_id)
        if record is None or record.revoked_at is not None:
            raise Unauthenticated
        if record.expires_at is not None and record.expires_at <= now:
            raise Unauthenticated("This API key has expired.")
        hashes = [hash_api_secret(secret_key, key_id=key_id, secret=secret) for secret_key in self._secrets]
        if not any(hmac.compare_digest(found, bytes(record.secret_hash)) for found in hashes):
            raise Unauthenticated
        caller = Caller(CallerKind.APPLICATION, f"key:{key_id}", scopes=frozenset(record.scopes))
        return _Verified(caller, now, record.expires_at)

    async def _look_up(self, key_id: str) -> KeyRecord | None:
        """One query per key, however many requests show it at the moment its minute ends."""
        running = self._looking_up.get(key_id)
        if running is None:
            running = asyncio.ensure_future(self._find_key(key_id))
            self._looking_up[key_id] = running
            running.add_done_callback(lambda _: self._looking_up.pop(key_id, None))
        return await asyncio.shield(running)
