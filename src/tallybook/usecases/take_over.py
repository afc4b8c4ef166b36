"""Takes over from the system before: its database and HubSpot differ, and one of the two has to be believed.

Numbers are the old database's or HubSpot's, as chosen; each difference is reported first. Names, e-mails and
sessions are HubSpot's in any case, since staff kept them there. A booking cancelled on either side is
cancelled, and one that HubSpot has never seen becomes ours and is pushed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from tallybook.domain.contacts import normalise_email, normalise_student_id
from tallybook.domain.errors import SetupError, ValidationError
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.booking_fields import BOOKING_PROPERTIES, parse_booking
from tallybook.hubspot.budget import CallKind
from tallybook.hubspot.field_values import clean, day, instant
from tallybook.hubspot.fields import ID_PROPERTY, RemoteContact, contact_properties, parse_contact
from tallybook.hubspot.records import Record
from tallybook.postgres.old_schema import OldRow, OldSchema
from tallybook.usecases.absorb_contacts import absorb_contacts
from tallybook.usecases.guard_mirror import demand_same_portal
from tallybook.usecases.import_portal import PortalImported, import_portal
from tallybook.usecases.mirror import Mirror

_STATE = "take_over"
_KIND = CallKind.IMPORT
_DEADLINE_S = 120.0


class Prefer(StrEnum):
    """Whose numbers hold."""

    DATABASE = "database"
    HUBSPOT = "hubspot"


@dataclass(frozen=True, slots=True)
class Difference:
    """What the old database and HubSpot say about one thing; None: nothing."""

    of: str
    ref: str
    field: str
    database: str | None
    hubspot: str | None


@dataclass(slots=True)
class TakenOver:
    """What was compared and what became of it; `differences` are counted by field, and told one by one."""

    contacts: int = 0
    bookings: int = 0
    differences: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    bookings_by_outcome: Counter[str] = field(default_factory=Counter)
    not_taken: dict[str, str] = field(default_factory=dict)
    imported: PortalImported | None = None


async def take_over(
    mirror: Mirror,
    old: OldSchema,
    *,
    prefer: Prefer,
    dry_run: bool = False,
    on_difference: Callable[[Difference], None] = lambda _: None,
    on_progress: Callable[[TakenOver], None] = lambda _: None,
) -> TakenOver:
    """Compares the two, and unless in a dry run takes both over: once; interrupted, the next run goes on.

    HubSpot's numbers become the base; where the others hold, they are pushed. Raises CrmBusy, CrmUnavailable,
    SetupError, DatabaseUnavailable; what was taken until then stays.
    """
    run = _Run(mirror, old, prefer, on_difference, on_progress, dry_run=dry_run)
    if not dry_run:
        await demand_same_portal(mirror)
    if not dry_run and await mirror.db.fetch_one("load_sync_state", {"name": _STATE}) is not None:
        raise SetupError(
            "This database has taken over already.",
            hint="What differs since: tallybook verify --mirror, or the same with --dry-run.",
        )
    await run.contacts()
    if not dry_run:
        run.result.imported = await import_portal(mirror)
    await run.bookings()
    if not dry_run:
        await mirror.db.fetch_all("save_sync_state", {"name": _STATE, "value": _json({"prefer": prefer})})
    return run.result


class _Run:
    def __init__(
        self,
        mirror: Mirror,
        old: OldSchema,
        prefer: Prefer,
        on_difference: Callable[[Difference], None],
        on_progress: Callable[[TakenOver], None],
        *,
        dry_run: bool,
    ) -> None:
        self.result = TakenOver()
        self._mirror = mirror
        self._old = old
        self._prefer = prefer
        self._on_difference = on_difference
        self._on_progress = on_progress
        self._dry_run = dry_run
        self._credits = {
            each.hubspot_property: each.name
            for each in mirror.catalog.mirrored_credit_types
            if each.hubspot_property is not None
        }

    async def contacts(self) -> None:
        async for rows in self._old.contacts(tuple(self._credits)):
            remotes = await self._remotes(rows)
            people = []
            for row in rows:
                remote = remotes.get(row["hubspot_id"] or "") or remotes.get((row["email"] or "").lower())
                person = self._person(row, remote)
                if person is not None:
                    people.append(person)
            if not self._dry_run:
                by_id = {each.hubspot_id: each for each in remotes.values()}
                await self._open(people, list(by_id.values()))
            self.result.contacts += len(rows)
            self._on_progress(self.result)

    async def bookings(self) -> None:
        async for rows in self._old.bookings():
            remotes = await self._remote_statuses(rows)
            for row in rows:
                item = self._booking(row)
                shown = remotes.get(row["hubspot_id"] or "")
                if row["hubspot_id"] is None:
                    self._differ("booking", row, "record", item["status"], None)
                elif shown is None:
                    self._differ("booking", row, "record", item["status"], "no such record")
                elif shown != item["status"]:
                    self._differ("booking", row, "is_active", item["status"], shown)
                if not self._dry_run:
                    await self._take(row, item)
            self.result.bookings += len(rows)
            self._on_progress(self.result)

    async def _remotes(self, rows: Sequence[OldRow]) -> Mapping[str, RemoteContact]:
        """HubSpot's contacts of these people, by record id and by e-mail."""
        found: dict[str, RemoteContact] = {}
        ids = [row["hubspot_id"] for row in rows if row["hubspot_id"]]
        mails = [row["email"].strip().lower() for row in rows if row["email"] and not row["hubspot_id"]]
        for keys, id_property in ((ids, None), (mails, "email")):
            records = await self._mirror.client.batch_read(
                self._mirror.crm_type(MirroredType.CONTACT),
                keys,
                id_property=id_property,
                properties=contact_properties(self._mirror.catalog),
                kind=_KIND,
                deadline_s=_DEADLINE_S,
            )
            for record in records:
                contact = parse_contact(record, self._mirror.catalog)
                found[contact.hubspot_id] = contact
                if contact.email is not None:
                    found[contact.email] = contact
        return found

    def _person(self, row: OldRow, remote: RemoteContact | None) -> dict[str, Any] | None:
        """The person as `open_people` takes them; None where HubSpot's numbers hold, or there is nobody."""
        if row["hubspot_id"] is not None and remote is None:
            self._differ("contact", row, "record", row["hubspot_id"], "no such record")
            self.result.not_taken[_ref(row)] = "HubSpot has no such contact any more"
            return None
        numbers = {name: self._number(row, column) for column, name in self._credits.items()}
        if remote is None:
            self._differ("contact", row, "record", _ref(row), None)
        else:
            for name, number in numbers.items():
                shown = remote.balances.get(name)
                if shown != number and not (shown is None and name not in remote.unreadable):
                    text = remote.unreadable.get(name) if shown is None else str(shown)
                    self._differ("contact", row, name, str(number), text)
            if self._prefer is Prefer.HUBSPOT:
                return None
        try:
            return _texts(row, remote) | {"credits": numbers}
        except ValidationError as error:
            self.result.not_taken[_ref(row)] = error.message
            return None

    def _number(self, row: OldRow, column: str) -> int:
        """A number of the old database: one below zero, which it allowed, is none."""
        text = row[column] or "0"
        number = int(text) if text.lstrip("-").isdecimal() else 0
        if number < 0:
            self._differ("contact", row, f"{self._credits[column]} below zero", text, None)
        return max(0, number)

    async def _open(self, people: Sequence[dict[str, Any]], remotes: Sequence[RemoteContact]) -> None:
        db = self._mirror.db
        opened = {key for (key,) in await db.fetch_all("open_people", {"people": _json(people)})}
        self.result.opened += len(opened)
        if self._prefer is Prefer.DATABASE:
            await db.fetch_all("keep_ours", {"records": _json([each.to_absorb() for each in remotes])})
            known = [each for each in people if each["student_id"] not in opened]
            for (student_id,) in await db.fetch_all("correct_people", {"people": _json(known)}):
                self.result.not_taken[student_id] = "somebody has changed these numbers here"
        if remotes:
            await absorb_contacts(db, remotes, first_reason="import", students_only=True)

    async def _remote_statuses(self, rows: Sequence[OldRow]) -> Mapping[str, str]:
        records = await self._mirror.client.batch_read(
            self._mirror.crm_type(MirroredType.BOOKING),
            [row["hubspot_id"] for row in rows if row["hubspot_id"]],
            properties=BOOKING_PROPERTIES,
            kind=_KIND,
            deadline_s=_DEADLINE_S,
        )
        found = ((each.id, parse_booking(each, self._mirror.catalog)) for each in records)
        return {hubspot_id: str(booking.to_absorb()["status"]) for hubspot_id, booking in found}

    def _booking(self, row: OldRow) -> dict[str, Any]:
        """The row as HubSpot would show it, and so as `absorb_bookings` would take it."""
        properties = {
            "booking_id": row["booking_id"],
            "is_active": row["status"],
            "token_used": row["token_used"],
            "token_refunded": row["token_refunded"],
            "token_refunded_at": row["token_refunded_at"],
            "attendance": row["attendance"],
            "dominant_hand": row["dominant_hand"],
            "attending_location": row["attending_location"],
            "idempotency_key": row["idempotency_key"],
            "associated_contact_id": row["contact_id"],
            "associated_mock_exam": row["mock_exam_id"],
            ID_PROPERTY: row["id"],
        }
        now = datetime.now(UTC)
        record = Record(
            id=str(row["id"]),
            updated_at=instant(row["updated_at"]) or now,
            created_at=instant(row["created_at"]) or now,
            properties=properties,
        )
        pair = {"student_id": row["student_id"], "email": (row["email"] or "").strip().lower()}
        return parse_booking(record, self._mirror.catalog).to_absorb() | pair

    async def _take(self, row: OldRow, item: dict[str, Any]) -> None:
        answer = await self._mirror.db.fetch_one(
            "take_over_booking", {"booking": _json(item), "hubspot_id": row["hubspot_id"]}
        )
        assert answer is not None
        self.result.bookings_by_outcome[answer[0]] += 1
        if answer[0] not in ("same", "cancelled", "taken"):
            self.result.not_taken[_ref(row)] = answer[0]

    def _differ(self, of: str, row: OldRow, field: str, database: str | None, hubspot: str | None) -> None:
        self.result.differences[f"{of}: {field}"] += 1
        self._on_difference(Difference(of, _ref(row), field, database, hubspot))


def _texts(row: OldRow, remote: RemoteContact | None) -> dict[str, Any]:
    """A person's texts, HubSpot's where it has any: staff keep them there. Raises ValidationError."""
    if remote is None:
        hubspot_id, email, student_id = None, clean(row["email"]), clean(row["student_id"])
        names = clean(row["firstname"]), clean(row["lastname"])
        exam_on = day(row["ndecc_exam_date"])
    else:
        hubspot_id, email = remote.hubspot_id, remote.email
        student_id = remote.student_id or clean(row["student_id"])
        names, exam_on = (remote.firstname, remote.lastname), remote.ndecc_exam_on
    return {
        "hubspot_id": hubspot_id,
        "email": normalise_email(email) if email else None,
        "student_id": normalise_student_id(student_id) if student_id else None,
        "firstname": names[0],
        "lastname": names[1],
        "ndecc_exam_date": exam_on.isoformat() if exam_on else None,
    }


def _ref(row: OldRow) -> str:
    """What a person finds it by."""
    return str(row.get("booking_id") or row.get("student_id") or row["id"])


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
