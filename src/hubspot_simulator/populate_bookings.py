"""Fills a portal with bookings: each joins a contact and a session, nobody twice a day, no seat twice."""

from collections.abc import Iterator
from random import Random

from hubspot_simulator.definitions import BOOKINGS, CONTACTS, MOCK_EXAMS
from hubspot_simulator.errors import ApiError
from hubspot_simulator.links import link
from hubspot_simulator.populate import IMPORT
from hubspot_simulator.portal import Portal
from hubspot_simulator.records import Record, RecordStore, uncollected

TOKENS = {
    "Situational Judgment": ("Situational Judgment Token", "Shared Token"),
    "Clinical Skills": ("Clinical Skills Token", "Shared Token"),
    "Mini-mock": ("Mini-mock Token",),
    "Mock Discussion": ("Mock Discussion Token",),
}
_REFUNDED = {"token_refunded": "true"}
CANCELLED_SHARE, OVERRIDE_SHARE, SHARED_SHARE = 0.12, 0.05, 0.25


class _Session:
    """A session while it is filled: whom it holds, and how many seats are left."""

    def __init__(self, store: RecordStore, record: Record) -> None:
        self.record = record
        self.type = store.value(record, "mock_type") or ""
        self.day = store.value(record, "exam_date") or ""
        self.place = store.value(record, "location") or ""
        self.capacity = int(store.value(record, "capacity") or 0)
        self.live = 0


def populate_bookings(portal: Portal, count: int, *, seed: int) -> int:
    """Add bookings 0..count-1 in sessions from the first on; ApiError 400 when they have too few seats."""
    if not count:
        return 0
    exams = portal.stores[MOCK_EXAMS]
    sessions = [_Session(exams, one) for one in exams.records]
    with uncollected():
        for session, contact, values in _chosen(portal, sessions, count, Random(seed + 2)):  # noqa: S311 - repeatable, not secret.
            _add(portal, session, contact, values)
        _count(portal, sessions)
        for kind in (BOOKINGS, MOCK_EXAMS):
            portal.stores[kind].index.rebuild()
    return count


def _chosen(
    portal: Portal, sessions: list[_Session], count: int, rng: Random
) -> Iterator[tuple[_Session, Record, dict[str, str]]]:
    contacts = portal.stores[CONTACTS]
    busy: set[tuple[int, str]] = set()
    made = at = 0
    in_vain = 0
    while made < count:
        # Every session in turn, every contact from a drawn one on, so that all of them take part.
        session = sessions[at % len(sessions)] if sessions else None
        at += 1
        found = None if session is None else _free(contacts, busy, session, rng)
        if session is None or found is None:
            in_vain += 1
            if in_vain > len(sessions):
                raise ApiError(400, f"There is room for {made} bookings.", category="VALIDATION_ERROR")
            continue
        in_vain = 0
        made += 1
        busy.add((found.id, session.day))
        values = _values(contacts, found, session, rng)
        session.live += values["is_active"] == "Active"
        yield session, found, values


def _free(contacts: RecordStore, busy: set[tuple[int, str]], session: _Session, rng: Random) -> Record | None:
    if session.live >= session.capacity or not contacts.records:
        return None
    first = rng.randrange(len(contacts.records))
    for step in range(len(contacts.records)):
        one = contacts.records[(first + step) % len(contacts.records)]
        if (one.id, session.day) not in busy:
            return one
    return None


def _values(contacts: RecordStore, contact: Record, session: _Session, rng: Random) -> dict[str, str]:
    of = {name: contacts.value(contact, name) or "" for name in ("student_id", "firstname", "lastname")}
    tokens = TOKENS.get(session.type, ("Admin Override",))
    token = tokens[-1] if rng.random() < SHARED_SHARE else tokens[0]
    override = rng.random() < OVERRIDE_SHARE
    cancelled = rng.random() < CANCELLED_SHARE
    values = {
        "booking_id": f"{session.type}-{of['student_id']}-{session.day}",
        "name": f"{of['firstname']} {of['lastname']}",
        "email": contacts.value(contact, "email") or "",
        "student_id": of["student_id"],
        "token_used": "Admin Override" if override else token,
        "is_active": "Cancelled" if cancelled else "Active",
    }
    if session.type == "Situational Judgment":
        values["attending_location"] = session.place
    if session.type in {"Clinical Skills", "Mini-mock"}:
        values["dominant_hand"] = "false" if rng.random() < 0.1 else "true"
    return {**values, **_REFUNDED} if cancelled and not override else values


def _add(portal: Portal, session: _Session, contact: Record, values: dict[str, str]) -> None:
    store, at_ms = portal.stores[BOOKINGS], portal.now_ms()
    if values.get("token_refunded"):
        values = {**values, "token_refunded_at": str(at_ms)}
    record = store.add(values, at_ms=at_ms, source=IMPORT)
    for kind, other in ((CONTACTS, contact), (MOCK_EXAMS, session.record)):
        end = (portal.stores[kind], other)
        link(portal, (store, record), end, (), at_ms=at_ms, source=IMPORT)


def _count(portal: Portal, sessions: list[_Session]) -> None:
    store = portal.stores[MOCK_EXAMS]
    for one in sessions:
        store.write(
            one.record,
            {"total_bookings": str(one.live)},
            at_ms=portal.now_ms(),
            source=IMPORT,
            keep=portal.settings.history_limit,
            same_value_entry=False,
        )
