"""Who is calling. Closed by default: each route names its access, and an unset secret opens nothing."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from starlette.types import Scope

from tallybook.api.addresses import client_address, is_loopback
from tallybook.api.keys import ApiKeys
from tallybook.api.staff_tokens import StaffTokens
from tallybook.api.tokens import StudentTokens
from tallybook.domain.callers import Caller, CallerKind
from tallybook.domain.errors import Forbidden, NotFound, Unauthenticated
from tallybook.domain.staff import POLICY, Permission, StaffRole, may

UNSIGNED_CALLS_PER_MIN = 600
"""Per address. A school behind one address has hundreds of students, so this bounds floods, not people."""

STUDENTS_SCOPE = "students"
CREDITS_SCOPE = "credits"
_STAFF_CHALLENGE = "Sign in as staff to read this."
_LONGEST_PASSWORD = 1024

VerifyStaff = Callable[[str, str, str], Awaitable[bool]]
"""(e-mail, password, address) -> whether a local staff account says so; counts failures per address."""


AdmitStaff = Callable[[UUID, int], Awaitable[StaffRole]]
"""(account, session epoch) -> its role now. Raises Unauthenticated, RateLimited."""


class Access(Enum):
    """Who may call a route."""

    PUBLIC = "public"
    STUDENT = "student"
    APPLICATION = "application"
    CRON = "cron"
    STAFF = "staff"
    DOCS = "docs"
    METRICS = "metrics"
    HUBSPOT = "hubspot"
    """Whoever signs as HubSpot; the signature covers the body, so the handler checks it."""
    STRIPE = "stripe"
    """Whoever signs as Stripe; likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What opens which door. A secret that is not set leaves its door shut."""

    cron_secret: str | None
    metrics_token: str | None
    pair_mode: bool
    public_docs: bool
    hubspot_webhooks: bool
    stripe_webhooks: bool
    trusted_proxies: int


class Doorkeeper:
    """Finds the caller of a request, or refuses it."""

    def __init__(
        self,
        doors: Doors,
        *,
        tokens: StudentTokens,
        staff_tokens: StaffTokens,
        keys: ApiKeys,
        verify_staff: VerifyStaff | None,
        admit_staff: AdmitStaff | None,
    ) -> None:
        self._doors = doors
        self._tokens = tokens
        self._staff_tokens = staff_tokens
        self._keys = keys
        self._admit_staff = admit_staff
        self._verify_staff = verify_staff
        self._trusted_proxies = doors.trusted_proxies

    def address(self, scope: Scope) -> str:
        """The address that limits count against."""
        return client_address(scope, trusted_proxies=self._trusted_proxies)

    async def admit(self, access: Access, scope: Scope, headers: Mapping[bytes, bytes]) -> Caller:
        """The caller. Raises Unauthenticated, Forbidden, NotFound."""
        if access is Access.STUDENT:
            return await self._student(scope, headers)
        if access is Access.APPLICATION:
            return await self._application(headers)
        if access is Access.PUBLIC:
            return await self._public(scope, headers)
        if access is Access.STAFF:
            return await self._staff(headers)
        if access is Access.DOCS:
            return await self._docs(scope, headers)
        return self._other_program(access, scope, headers)

    def _other_program(self, access: Access, scope: Scope, headers: Mapping[bytes, bytes]) -> Caller:
        if access is Access.CRON:
            _check_secret(_bearer(headers), self._doors.cron_secret)
            return Caller(CallerKind.CRON, "cron")
        if access is Access.METRICS:
            if not is_loopback(scope):
                _check_secret(_bearer(headers), self._doors.metrics_token)
            return Caller(CallerKind.PUBLIC, "metrics")
        if access is Access.HUBSPOT and self._doors.hubspot_webhooks:
            return Caller(CallerKind.PUBLIC, "hubspot")
        if access is Access.STRIPE and self._doors.stripe_webhooks:
            return Caller(CallerKind.PUBLIC, "stripe")
        raise NotFound

    async def _student(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Caller:
        token = _bearer(headers)
        if token is None:
            if self._doors.pair_mode:
                return self._unsigned(CallerKind.PAIR, scope)
            raise Unauthenticated
        if ApiKeys.is_key(token):
            return await self._with_key(token, STUDENTS_SCOPE)
        return self._tokens.verify(token)

    async def _application(self, headers: Mapping[bytes, bytes]) -> Caller:
        token = _bearer(headers)
        if token is None or not ApiKeys.is_key(token):
            raise Unauthenticated
        return await self._with_key(token, CREDITS_SCOPE)

    async def _with_key(self, token: str, scope: str) -> Caller:
        caller = await self._keys.verify(token)
        if not caller.has_scope(scope):
            raise Forbidden(f"This key needs the scope {scope!r} for that.", scope=scope)
        return caller

    async def _public(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Caller:
        """Public means public: a credential only lifts the limit of the address, a bad one lifts nothing."""
        try:
            token = _bearer(headers)
            if token is not None:
                return await self._keys.verify(token) if ApiKeys.is_key(token) else self._tokens.verify(token)
        except Unauthenticated:
            pass
        return self._unsigned(CallerKind.PUBLIC, scope)

    def _unsigned(self, kind: CallerKind, scope: Scope) -> Caller:
        address = self.address(scope)
        name = "pair" if kind is CallerKind.PAIR else "address"
        return Caller(
            kind, f"{name}:{address}", limit_key=f"address:{address}", limit_per_min=UNSIGNED_CALLS_PER_MIN
        )

    async def _staff(self, headers: Mapping[bytes, bytes]) -> Caller:
        """By their token, which only identifies: the role is what the database says now."""
        token = _bearer(headers)
        if token is None or self._admit_staff is None:
            raise Unauthenticated
        staff_id, epoch = self._staff_tokens.verify(token)
        role = await self._admit_staff(staff_id, epoch)
        return Caller(CallerKind.STAFF, f"staff:{staff_id}", epoch=epoch, role=role)

    async def _docs(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Caller:
        if self._doors.public_docs:
            return Caller(CallerKind.PUBLIC, "docs")
        email, password = _basic(headers)
        if self._verify_staff is None or not await self._verify_staff(email, password, self.address(scope)):
            raise Unauthenticated(_STAFF_CHALLENGE)
        return Caller(CallerKind.STAFF, "staff")


def check_permission(caller: Caller, permission: Permission) -> None:
    """Nothing when this caller's role may do that. Raises Forbidden."""
    if caller.role is None or not may(caller.role, permission):
        raise Forbidden(f"This needs the role {POLICY[permission].value}.", needs=POLICY[permission].value)


def _bearer(headers: Mapping[bytes, bytes]) -> str | None:
    """The bearer token; None when no Authorization came. Another scheme is a failed sign-in."""
    given = headers.get(b"authorization")
    if not given:
        return None
    scheme, _, token = given.partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token:
        raise Unauthenticated
    return token.decode("latin-1")


def _basic(headers: Mapping[bytes, bytes]) -> tuple[str, str]:
    scheme, _, encoded = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"basic" and len(encoded) <= 2 * _LONGEST_PASSWORD:
        try:
            email, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Unauthenticated(_STAFF_CHALLENGE) from None
        if colon and email and password:
            return email, password
    raise Unauthenticated(_STAFF_CHALLENGE)


def _check_secret(given: str | None, expected: str | None) -> None:
    if not expected or given is None or not hmac.compare_digest(given.encode(), expected.encode()):
        raise Unauthenticated
