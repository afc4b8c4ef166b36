"""Takes a webhook of HubSpot's: what happened to records of ours becomes hints in the inbox."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from tallybook.domain.errors import ValidationError
from tallybook.domain.mirror import MirroredType
from tallybook.postgres.pool import Database

_CONTACT_TYPE_ID = "0-1"
_ID = re.compile(r"[0-9]{1,20}")
_WORD = re.compile(r"[!-~]{0,200}")
_LATEST_MS = 253_402_300_799_000
# Only these can be an echo of what we wrote; the others tell of what we never do.
_PERHAPS_OURS = ("creation", "propertyChange")


class _Event(msgspec.Struct, rename="camel"):
    """An event as HubSpot sends it; every field but the first may be missing."""

    subscription_type: str
    object_id: int | str | None = None
    object_type_id: str | None = None
    event_id: int | str = ""
    occurred_at: int = 0
    property_name: str = ""
    change_source: str | None = None
    source_id: str | None = None
    primary_object_id: int | str | None = None
    merged_object_ids: list[int | str] = []
    new_object_id: int | str | None = None
    from_object_id: int | str | None = None
    from_object_type_id: str | None = None
    to_object_id: int | str | None = None
    to_object_type_id: str | None = None


class Hint(msgspec.Struct, frozen=True, kw_only=True):
    """That something happened to a record: no value, only where to look. `details` has the ids of a merge."""

    object_type: MirroredType
    hubspot_id: str
    subscription_type: str
    property_name: str = ""
    event_id: str = ""
    occurred_at: datetime
    details: Mapping[str, list[str]] = {}
    source_id: str | None = None
    """Which integration did it; None for people."""


@dataclass(frozen=True, slots=True)
class Received:
    """What became of the events of one webhook.

    `repeated` were there already, `own` are echoes of what we wrote, `ignored` are about nothing that is
    mirrored.
    """

    stored: int = 0
    repeated: int = 0
    own: int = 0
    ignored: int = 0


async def receive_events(db: Database, body: bytes, *, types: Mapping[str, MirroredType]) -> Received:
    """Stores what concerns records of ours, in one statement; `types` are HubSpot's ids of custom objects.

    Raises ValidationError when the body is no JSON list; single events of an unknown form are ignored.
    """
    try:
        events = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValidationError(
            "The request is not valid: the body is no JSON list of events.",
            field="body",
            problem="is no JSON list of events",
        ) from None
    known = {_CONTACT_TYPE_ID: MirroredType.CONTACT, **types}
    found = [list(_hints(event, known)) for event in events]
    hints = [hint for each in found for hint in each]
    ignored = sum(not each for each in found)
    if not hints:
        return Received(ignored=ignored)
    stored, own = await _store(db, hints)
    return Received(stored=stored, repeated=len(hints) - stored - own, own=own, ignored=ignored)


async def _store(db: Database, hints: Sequence[Hint]) -> tuple[int, int]:
    row = await db.fetch_one("receive_events", {"events": msgspec.json.encode(hints).decode()})
    assert row is not None
    return row[0], row[1]


def _hints(raw: msgspec.Raw, types: Mapping[str, MirroredType]) -> Iterator[Hint]:
    """What one event says about records of ours; nothing when it is none we can use."""
    try:
        event = msgspec.json.decode(raw, type=_Event)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    subject, _, what = event.subscription_type.partition(".")
    texts = (event.subscription_type, event.property_name, str(event.event_id))
    if not all(map(_WORD.fullmatch, texts)) or not 0 <= event.occurred_at <= _LATEST_MS:
        return
    type_id = event.object_type_id or (_CONTACT_TYPE_ID if subject == "contact" else "")
    concerned = [(type_id, event.object_id)]
    if what == "associationChange":
        # Only bookings keep what they are associated with.
        sides = (
            (event.from_object_type_id or type_id, event.from_object_id),
            (event.to_object_type_id or "", event.to_object_id),
        )
        concerned = [side for side in sides if types.get(side[0]) is MirroredType.BOOKING]
    details = _merged(event) if what == "merge" else {}
    for each, record_id in concerned:
        if each not in types:
            continue
        hubspot_id = _id(record_id) or next((ids[0] for ids in details.values()), None)
        if hubspot_id is not None:
            yield Hint(
                object_type=types[each],
                hubspot_id=hubspot_id,
                subscription_type=event.subscription_type,
                property_name=event.property_name,
                event_id=str(event.event_id),
                occurred_at=datetime.fromtimestamp(event.occurred_at / 1000, UTC),
                details=details,
                source_id=event.source_id
                if what in _PERHAPS_OURS and event.change_source == "INTEGRATION"
                else None,
            )


def _merged(event: _Event) -> dict[str, list[str]]:
    ids = {
        "new": [_id(event.new_object_id)],
        "primary": [_id(event.primary_object_id)],
        "merged": [_id(each) for each in event.merged_object_ids],
    }
    found = {name: [each for each in given if each is not None] for name, given in ids.items()}
    return {name: given for name, given in found.items() if given}


def _id(given: int | str | None) -> str | None:
    text = str(given)
    return text if _ID.fullmatch(text) else None
