"""Looks at an installation from outside and says what is right, what is risky, and what has to be done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tallybook.domain.catalog import Catalog
from tallybook.domain.errors import DatabaseUnavailable, SetupError, TallybookError
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import HubSpotClient
from tallybook.postgres.pool import Database
from tallybook.usecases.check_readiness import demand_readiness, demand_schema, why_unavailable
from tallybook.usecases.prepare_portal import plan_portal

_DEADLINE_S = 20.0
OLDEST_SERVER, NEWEST_SERVER = 15, 18


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Fix(StrEnum):
    """What `doctor --fix` can do by itself, in the order in which it does it."""

    MIGRATE = "migrate"
    SECURE = "secure"
    CATALOG = "catalog"
    PORTAL = "portal"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was found, and what to do about it."""

    level: Level
    subject: str
    found: str
    to_do: str | None = None
    fix: Fix | None = None


async def check_database(db: Database, catalog: Catalog, *, release: str) -> list[Finding]:
    """The server, the role we act as, the schema, its rights, and the catalog."""
    try:
        row = await db.fetch_one("server_facts")
    except DatabaseUnavailable as error:
        reason = why_unavailable(error)
        return [
            _fail("database", f"does not answer: {reason}", "Check DATABASE_URL and that PostgreSQL runs.")
        ]
    assert row is not None
    version, role, session_role, is_above_rules, is_owner = row
    findings = [_server(version), _role(role, session_role, above=is_above_rules, owner=is_owner)]
    try:
        await demand_schema(db, release=release)
    except SetupError as error:
        fix = Fix.MIGRATE if "migrate" in (error.hint or "") else None
        return [*findings, Finding(Level.FAIL, "schema", error.message, error.hint, fix)]
    findings.append(Finding(Level.OK, "schema", f"fits release {release}"))
    problems = [str(problem) for (problem,) in await db.fetch_all("security_problems")]
    findings += [
        Finding(Level.FAIL, "rights", problem, "Run: tallybook doctor --fix", Fix.SECURE)
        for problem in problems
    ]
    if not problems:
        findings.append(Finding(Level.OK, "rights", "nobody else can read or change anything"))
    try:
        await demand_readiness(db, catalog, release=release)
    except SetupError as error:
        findings.append(Finding(Level.FAIL, "catalog", error.message, error.hint, Fix.CATALOG))
    else:
        findings.append(Finding(Level.OK, "catalog", f"the database decides by {catalog.hash[:12]}"))
    return findings


def _server(version: int) -> Finding:
    if OLDEST_SERVER <= version <= NEWEST_SERVER:
        return Finding(Level.OK, "database", f"PostgreSQL {version} answers")
    level = Level.FAIL if version < OLDEST_SERVER else Level.WARN
    return Finding(
        level,
        "database",
        f"PostgreSQL {version} is not one that Tallybook is tested on",
        f"Use PostgreSQL {OLDEST_SERVER} to {NEWEST_SERVER}.",
    )


def _role(role: str, session_role: str, *, above: bool, owner: bool | None) -> Finding:
    signed_in = "" if role == session_role else f" (signed in as {session_role})"
    if above:
        return _fail(
            "role",
            f"we act as {role}, which row level security does not bind",
            "Let DATABASE_URL name a role that is a member of tallybook_app.",
        )
    if owner:
        return Finding(
            Level.WARN,
            "role",
            f"we act as {role}, which owns the schema",
            "Grant tallybook_app to it, or let DATABASE_URL name a role that is not the owner.",
        )
    return Finding(Level.OK, "role", f"we act as {role}{signed_in}")


async def check_hubspot(client: HubSpotClient, catalog: Catalog, *, observe: bool = False) -> list[Finding]:
    """The token, the portal, and whether every property that Tallybook reads or writes is there.

    `observe`: nothing is written to HubSpot, so what only writing needs is no failure.
    """
    try:
        account = await client.account_details(kind=CallKind.RECONCILE, deadline_s=_DEADLINE_S)
    except TallybookError as error:
        return [not_readable("HubSpot", error)]
    findings = [Finding(Level.OK, "HubSpot", f"the token opens portal {account.portal_id}")]
    for of in MirroredType:
        findings += await _properties(client, catalog, of, observe=observe)
    return findings


async def _properties(
    client: HubSpotClient, catalog: Catalog, of: MirroredType, *, observe: bool
) -> list[Finding]:
    subject = f"HubSpot {of.value.replace('_', ' ')}s"
    try:
        plan = await plan_portal(client, catalog, types=[of])
    except TallybookError as error:
        return [not_readable(subject, error)]
    findings = [
        Finding(
            Level.WARN if observe else Level.FAIL,
            subject,
            f"the property {missing.wanted.name} is missing",
            "It is created by: tallybook doctor --fix, once TALLYBOOK_MODE is live."
            if observe
            else "Run: tallybook doctor --fix",
            None if observe else Fix.PORTAL,
        )
        for missing in plan.to_create
    ]
    findings += [
        Finding(Level.FAIL if problem.is_grave else Level.WARN, subject, problem.found, problem.to_do)
        for problem in plan.problems
    ]
    return findings or [Finding(Level.OK, subject, f"all {plan.looked_at[of]} properties are there")]


def not_readable(subject: str, error: TallybookError) -> Finding:
    """What could not be looked at, and why."""
    if isinstance(error, SetupError):
        return Finding(Level.FAIL, subject, error.message, error.hint)
    reason = error.details.get("hubspot_message") or error.details.get("problem") or error.message
    return Finding(
        Level.FAIL, subject, f"does not answer: {reason}", "Check HUBSPOT_BASE_URL, or try again later."
    )


def _fail(subject: str, found: str, to_do: str) -> Finding:
    return Finding(Level.FAIL, subject, found, to_do)
