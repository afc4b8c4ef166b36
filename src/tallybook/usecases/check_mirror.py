"""Looks at a portal as the mirror will meet it: what our token may do, whose it is, and who else writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tallybook.domain.catalog import Catalog
from tallybook.domain.errors import SetupError, TallybookError, Unavailable
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import HISTORY_BATCH_SIZE, HubSpotClient
from tallybook.hubspot.connection import CONTACTS, objects_path, properties_path
from tallybook.hubspot.errors import error_of
from tallybook.hubspot.fields import STAMP_PROPERTY
from tallybook.hubspot.histories import (
    ONE_REQUEST,
    SAME_TIME,
    oldest_first,
    own_stamps,
    owners,
    source_of,
)
from tallybook.hubspot.records import Record
from tallybook.hubspot.writes import Answer
from tallybook.postgres.pool import Database
from tallybook.usecases.check_setup import Finding, Level, not_readable
from tallybook.usecases.guard_mirror import read_portal
from tallybook.usecases.learn_stamp_times import learn_stamp_times, stamps_apart
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.show_sync_status import show_sync_status

_KIND = CallKind.RECONCILE
_DEADLINE_S = 20.0


async def check_write_access(client: HubSpotClient) -> list[Finding]:
    """Whether the token may write all three types and its marker, found out by calls that change nothing.

    A missing scope answers 403 before HubSpot looks at what is to be written, and nothing is to be written.
    """
    attempts = [
        (
            of.value.replace("_", " ") + "s",
            "POST",
            objects_path(client.connection.object_type(of), "batch/update"),
        )
        for of in MirroredType
    ]
    attempts.append(("properties", "PATCH", properties_path(CONTACTS, STAMP_PROPERTY)))
    findings: list[Finding] = []
    for what, method, path in attempts:
        operation = f"write {what}"
        got = await client.send_once(
            method,
            path,
            {"inputs": []} if method == "POST" else {},
            operation=operation,
            kind=_KIND,
            wait_s=_DEADLINE_S,
        )
        if isinstance(got, Answer) and got.status == 403:
            error = error_of(
                got.status,
                body=got.content,
                headers=got.headers,
                operation=operation,
                token=client.connection.token,
            )
            findings.append(not_readable("HubSpot scopes", error))
    return findings or [Finding(Level.OK, "HubSpot scopes", "the token may write what the mirror writes")]


async def check_binding(mirror: Mirror) -> list[Finding]:
    """Whether this database and this portal belong together, and whether pushing is stopped."""
    try:
        portal = await read_portal(mirror)
        status = await show_sync_status(mirror.db)
        row = await mirror.db.fetch_one("database_id")
    except (Unavailable, SetupError) as error:
        return [not_readable("binding", error)]
    ours = (status["portal"] or {}).get("portal_id")
    findings: list[Finding] = []
    if ours is not None and ours != portal.account.portal_id:
        findings.append(
            Finding(
                Level.FAIL,
                "binding",
                f"this database belongs to portal {ours}; the token opens portal {portal.account.portal_id}",
                "Use a token of that portal, or run: tallybook sync rebind",
            )
        )
    if portal.marker is not None and row is not None and portal.marker.database_id != row[0]:
        findings.append(
            Finding(
                Level.WARN if mirror.observe else Level.FAIL,
                "binding",
                f"portal {portal.account.portal_id} belongs to another database, {portal.marker.database_id}",
                "Use TALLYBOOK_MODE=observe to look only, or run: tallybook sync rebind",
            )
        )
    if status["hold"] is not None:
        findings.append(
            Finding(
                Level.FAIL,
                "mirror",
                f"nothing is pushed: {status['hold'].get('reason')}",
                "Run: tallybook sync reconcile --after-restore",
            )
        )
    bound = "belongs to this portal" if ours is not None else "is not bound to a portal yet"
    return findings or [Finding(Level.OK, "binding", f"this database {bound}")]


@dataclass(slots=True)
class _Sample:
    """What the histories of some contacts say about whoever uses our token."""

    stamped: int = 0
    matched: int = 0
    furthest_apart: timedelta = SAME_TIME
    unstamped: int = 0


async def check_stamps(client: HubSpotClient, catalog: Catalog, db: Database | None = None) -> list[Finding]:
    """Whether own writes can be told from others, by the histories of the contacts written last.

    A number from our source that no stamp names is another program with our token. Where stamp and number of
    one request have two times, that is kept in `db`, and from then on histories are read so.
    """
    names = [each.hubspot_property for each in catalog.mirrored_credit_types if each.hubspot_property]
    try:
        records = await _sample(client, [STAMP_PROPERTY, *names])
        sample = _weigh(records, names)
        findings = await _times(client, db, sample.furthest_apart)
    except TallybookError as error:
        return [not_readable("stamps", error)]
    if sample.unstamped:
        findings.append(
            Finding(
                Level.WARN,
                "stamps",
                f"{sample.unstamped} numbers of {len(records)} contacts were written by our source without a"
                " stamp: another program uses the same token, and its changes count as edits",
                "Give Tallybook a token of its own.",
            )
        )
    elif not sample.stamped:
        text = "no number was written by us yet: look again after the first"
        findings.append(Finding(Level.OK, "stamps", text))
    elif not findings:
        text = f"all {sample.matched} numbers written by us are stamped"
        findings.append(Finding(Level.OK, "stamps", text))
    return findings


async def _times(client: HubSpotClient, db: Database | None, apart: timedelta) -> list[Finding]:
    """What it means that times differ here, or did when somebody looked before; nothing if they never did."""
    known = await stamps_apart(db) if db is not None else None
    if not apart and known is None:
        return []
    differ = "HubSpot's histories give stamp and number of one request times that lie up to"
    seconds = max(apart, known or apart).total_seconds()
    differ = f"{differ} {seconds:.3f} s apart"
    recognised = f"own writes are recognised within {ONE_REQUEST.total_seconds():.0f} s on this portal"
    learnt = None
    if apart and db is not None:
        account = await client.account_details(kind=_KIND, deadline_s=_DEADLINE_S)
        learnt = await learn_stamp_times(db, portal_id=account.portal_id, apart=apart)
    if apart and learnt is None:
        to_do = (
            "Before anything is pushed, run doctor with the database that is bound to this portal"
            " (tallybook sync rebind): it is kept there."
        )
        return [Finding(Level.FAIL, "stamps", f"{differ}: own writes would be taken for edits", to_do)]
    if learnt is not None and learnt.is_new:
        return [
            Finding(
                Level.WARN,
                "stamps",
                f"{differ}: from now on {recognised}, by every process and without a restart",
                "What was read until now was taken for edits: look through entries of hubspot:integration.",
            )
        ]
    return [Finding(Level.OK, "stamps", f"{differ}: {recognised}")]


async def _sample(client: HubSpotClient, properties: Sequence[str]) -> tuple[Record, ...]:
    """The contacts changed last among those with a stamp, with their histories."""
    page = await client.search(
        CONTACTS,
        kind=_KIND,
        deadline_s=_DEADLINE_S,
        filters=[{"propertyName": STAMP_PROPERTY, "operator": "HAS_PROPERTY"}],
        sort_by="lastmodifieddate",
        descending=True,
        limit=HISTORY_BATCH_SIZE,
    )
    return await client.batch_read(
        CONTACTS,
        [record.id for record in page.results],
        properties=properties,
        with_history=properties,
        kind=_KIND,
        deadline_s=_DEADLINE_S,
    )


def _weigh(records: Iterable[Record], names: Sequence[str]) -> _Sample:
    sample = _Sample()
    for record in records:
        history = record.properties_with_history or {}
        stamps = [
            each for each in own_stamps(oldest_first(history.get(STAMP_PROPERTY, ()))) if each.stamp.numbers
        ]
        sources = {source_of(each.entry) for each in stamps}
        # What came before the first stamp was another program's, and rightly so; and HubSpot keeps only so
        # many stamps.
        since = min((each.entry.timestamp for each in stamps), default=None)
        sample.stamped += len(stamps)
        for name in names:
            entries = oldest_first(history.get(name, ()))
            for entry, owner in zip(entries, owners(entries, stamps, name, ONE_REQUEST), strict=True):
                if owner is not None:
                    sample.matched += 1
                    apart = abs(owner.entry.timestamp - entry.timestamp)
                    sample.furthest_apart = max(sample.furthest_apart, apart)
                elif since is not None and source_of(entry) in sources and entry.timestamp >= since:
                    sample.unstamped += 1
    return sample
