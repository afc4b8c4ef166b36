"""Fills a portal: contacts with balances from a seed, sessions of the four types over the coming weeks."""

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

from hubspot_simulator.definitions import CONTACTS, MOCK_EXAMS
from hubspot_simulator.portal import Portal
from hubspot_simulator.portal_defaults import BALANCES, MOCK_SETS, MOCK_TYPES, PLACES
from hubspot_simulator.records import Record, RecordStore, Source, uncollected

IMPORT = Source("IMPORT", "import:1")
# Fixed times: the same portal filled again looks the same to whoever mirrored it before. 2026-01-01T05:00Z.
FIRST_CONTACT_MS = 1_767_243_600_000
CONTACT_STEP_MS = 25_000
CONTACT_SPAN_MS = 300 * 86_400_000
FIRST_STUDENT = 1_599_000
TEXTS = tuple(str(one) for one in range(11))
KNOWN_BALANCES = ("5", "3", "2", "2", "1")

_FIRST_NAMES = (
    "Aisha",
    "Amir",
    "Ana",
    "Ben",
    "Carmen",
    "Chen",
    "Chloe",
    "Daniel",
    "David",
    "Elena",
    "Emma",
    "Farah",
    "Fatima",
    "Gabriel",
    "Grace",
    "Hana",
    "Hassan",
    "Ibrahim",
    "Ines",
    "Ivan",
    "Jasmine",
    "Jonas",
    "Julia",
    "Karim",
    "Kavya",
    "Laila",
    "Leo",
    "Liam",
    "Lucia",
    "Maria",
    "Marta",
    "Mehdi",
    "Mei",
    "Mina",
    "Nadia",
    "Noah",
    "Nora",
    "Olivia",
    "Omar",
    "Paul",
    "Priya",
    "Rahul",
    "Rana",
    "Sami",
    "Sara",
    "Sofia",
    "Tariq",
    "Thomas",
    "Yara",
    "Zoe",
)
_LAST_NAMES = (
    "Abdi",
    "Ahmed",
    "Ali",
    "Anderson",
    "Bauer",
    "Brown",
    "Chan",
    "Chen",
    "Cohen",
    "Costa",
    "Das",
    "Diaz",
    "Dubois",
    "Evans",
    "Fernandes",
    "Garcia",
    "Gill",
    "Green",
    "Haddad",
    "Hansen",
    "Hossain",
    "Hussain",
    "Ito",
    "Jones",
    "Kaur",
    "Khan",
    "Kim",
    "Kumar",
    "Lam",
    "Lee",
    "Lopez",
    "Martin",
    "Mehta",
    "Mohamed",
    "Murphy",
    "Nguyen",
    "Novak",
    "O'Brien",
    "Okafor",
    "Park",
    "Patel",
    "Pereira",
    "Rossi",
    "Roy",
    "Santos",
    "Shah",
    "Silva",
    "Singh",
    "Smith",
    "Tremblay",
    "Wang",
    "Wilson",
    "Wong",
    "Yang",
)
_DURATIONS_MIN = {"Situational Judgment": 120, "Clinical Skills": 180, "Mini-mock": 90, "Mock Discussion": 60}
_ADDRESSES = {
    "Online": "Online",
    "Calgary": "120 4 Ave SW, Calgary",
    "Montreal": "1000 Rue Sherbrooke O, Montreal",
}


def _balances(bits: int) -> tuple[str | None, ...]:
    """Five balances from 64 random bits: two of three contacts have credits."""
    if bits % 3 == 0:
        return tuple("0" if bits >> (8 + at) & 1 else None for at in range(5))
    drawn = [(bits >> (8 + 8 * at) & 0xFF) % 14 for at in range(5)]
    if not any(0 < one <= 10 for one in drawn):
        drawn[0] = 1 + bits % 10
    return tuple(TEXTS[one] if one <= 10 else None for one in drawn)


def _contact_rows(store: RecordStore, count: int, seed: int) -> Iterator[tuple[str | None, ...]]:
    names = ("student_id", "email", "firstname", "lastname", *BALANCES)
    columns = [store.columns[name] for name in names]
    width = 1 + max(columns)
    rng = Random(seed)  # noqa: S311 - repeatable, not secret.
    for i in range(count):
        bits = rng.getrandbits(64)
        row: list[str | None] = [None] * width
        balances = KNOWN_BALANCES if i == 0 else _balances(bits)
        first = _FIRST_NAMES[(bits >> 48) % len(_FIRST_NAMES)]
        last = _LAST_NAMES[(bits >> 20) % len(_LAST_NAMES)]
        values = (str(FIRST_STUDENT + i), f"student{i}@example.com", first, last, *balances)
        for column, value in zip(columns, values, strict=True):
            row[column] = value
        yield tuple(row)


def populate_contacts(portal: Portal, count: int, *, seed: int, same_time: bool = False) -> int:
    """Add contacts 0..count-1; contact i depends on the seed and on i alone."""
    store = portal.stores[CONTACTS]
    with uncollected():
        for i, row in enumerate(_contact_rows(store, count, seed)):
            step = 0 if same_time else i * CONTACT_STEP_MS
            store.append(Record(store.new_id(), row, FIRST_CONTACT_MS + min(step, CONTACT_SPAN_MS), IMPORT))
        store.index.rebuild()
    return count


def populate_mock_exams(portal: Portal, count: int, *, seed: int) -> int:
    """Add sessions of the four types in turn, one or more a day, from tomorrow in the portal's time zone."""
    store = portal.stores[MOCK_EXAMS]
    rng = Random(seed + 1)  # noqa: S311 - repeatable, not secret.
    zone = ZoneInfo(portal.settings.time_zone)
    today = datetime.fromtimestamp(portal.now_s(), zone).date()
    at_ms = portal.now_ms()
    weeks_days = max(28, count)
    for i in range(count):
        kind = MOCK_TYPES[i % 4]
        on = today + timedelta(days=1 + i * weeks_days // max(count, 1))
        starts = datetime.combine(on, time(9 + 2 * (i % 4)), zone)
        ends = starts + timedelta(minutes=_DURATIONS_MIN[kind])
        place = "Online" if kind == "Mock Discussion" else PLACES[rng.randrange(len(PLACES) - 1)]
        values = {
            "mock_exam_id": str(i + 1),
            "mock_exam_name": f"{kind}-{place}-{on.isoformat()}",
            "mock_type": kind,
            "exam_date": on.isoformat(),
            "start_time": str(round(starts.timestamp() * 1000)),
            "end_time": str(round(ends.timestamp() * 1000)),
            "location": place,
            "address": _ADDRESSES.get(place, f"{place}, ON"),
            "capacity": str(rng.choice((8, 12, 20, 30))),
            "total_bookings": "0",
            "is_active": "true",
        }
        if kind != "Mini-mock":
            values["mock_set"] = MOCK_SETS[rng.randrange(len(MOCK_SETS))]
        store.add(values, at_ms=at_ms, source=IMPORT)
    store.index.rebuild()
    return count
