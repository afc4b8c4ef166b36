"""Looks at a portal as the mirror will meet it: what our token may do, whose it is, and who else writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tallybook.domain.catalog import Catalog
from tallybook.domain.errors import SetupError, TallybookError, Unavailable
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.client import HISTORY_BATCH_SIZE, HubSpotClient
from tallybook.hubspot.connection import CONTACTS, objects_path, properties_path
from tallybook.hubspot.errors import error_of
from tallybook.hubspot.fields import STAMP_PROPERTY
from tallybook.hubspot.records import HistoryEntry, Record
from tallybook.hubspot.stamps import parse_stamp
from tallybook.hubspot.writes import Answer
from tallybook.usecases.check_setup import Finding, Level, not_readable
from tallybook.usecases.guard_mirror import read_portal
from tallybook.usecases.mirror import Mirror
from tallybook.usecases.show_sync_status import show_sync_status

_KIND = CallKind.RECONCILE
_DEADLINE_S = 20.0
# HubSpot may write the values of one request one after the other; further apart they are two requests.
_ONE_REQUEST_S = 2.0


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
    furthest_apart_s: float = 0.0
    unstamped: int = 0


async def check_stamps(client: HubSpotClient, catalog: Catalog) -> list[Finding]:
    """Whether own writes can be told from others, by the histories of the contacts written last.

    A number from our source that no stamp names is another program with our token. A stamp whose time is not
    that of the number it names would make our own writes look like a person's.
    """
    names = [each.hubspot_property for each in catalog.mirrored_credit_types if each.hubspot_property]
    try:
        records = await _sample(client, [STAMP_PROPERTY, *names])
    except TallybookError as error:
        return [not_readable("stamps", error)]
    sample = _weigh(records, names)
    if not sample.stamped:
        return [Finding(Level.OK, "stamps", "no number was written by us yet: look again after the first")]
    findings: list[Finding] = []
    if sample.furthest_apart_s > 0:
        findings.append(
            Finding(
                Level.FAIL,
                "stamps",
                f"HubSpot's histories give stamp and number of one request times that lie up to"
                f" {sample.furthest_apart_s:.3f} s apart: own writes would be taken for edits",
                "Do not let Tallybook push to this portal (TALLYBOOK_MODE=observe), and report this.",
            )
        )
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
    return findings or [
        Finding(Level.OK, "stamps", f"all {sample.matched} numbers written by us are stamped")
    ]


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
        stamps = [entry for entry in history.get(STAMP_PROPERTY, ()) if _names(entry)]
        sources = {_source(entry) for entry in stamps}
        # What came before the first stamp was another program's, and rightly so; and HubSpot keeps only so
        # many stamps.
        since = min((entry.timestamp for entry in stamps), default=None)
        sample.stamped += len(stamps)
        for name in names:
            for entry in history.get(name, ()):
                if since is None or _source(entry) not in sources or entry.timestamp < since:
                    continue
                apart_s = _nearest_s(entry, name, history.get(STAMP_PROPERTY, ()))
                if apart_s is None:
                    sample.unstamped += 1
                else:
                    sample.matched += 1
                    sample.furthest_apart_s = max(sample.furthest_apart_s, apart_s)
    return sample


def _nearest_s(entry: HistoryEntry, name: str, stamps: Iterable[HistoryEntry]) -> float | None:
    """How far the stamp that names this number lies from it; None: no request of ours can have been it."""
    found = [
        abs((stamp.timestamp - entry.timestamp).total_seconds())
        for stamp in stamps
        if _source(stamp) == _source(entry) and str(_names(stamp).get(name)) == entry.value
    ]
    nearest_s = min(found, default=None)
    return nearest_s if nearest_s is not None and nearest_s <= _ONE_REQUEST_S else None


def _names(entry: HistoryEntry) -> dict[str, int]:
    stamp = parse_stamp(entry.value)
    return stamp.numbers if stamp else {}


def _source(entry: HistoryEntry) -> tuple[str | None, str | None]:
    return entry.source_type, entry.source_id
