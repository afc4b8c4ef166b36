"""One simulated portal: its clock, its object types, its records and the rules every write obeys."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from zlib import crc32

from hubspot_simulator.definitions import ObjectType, Property, system_properties
from hubspot_simulator.errors import ApiError, bad_values, contact_exists, taken, unknown_type
from hubspot_simulator.limits import Limiter
from hubspot_simulator.portal_defaults import link_types, object_types
from hubspot_simulator.records import Entry, Record, RecordStore, Source, TakenError
from hubspot_simulator.rules import Rules
from hubspot_simulator.settings import Settings
from hubspot_simulator.stats import Stats
from hubspot_simulator.values import BadValueError, Raw, as_text, checked, checked_email, iso, whole_id

# Every type starts at the same id: HubSpot's ids are unique per type only, and code that forgets it fails
# here.
FIRST_ID = 96_384_010_517
CUSTOM_TYPE_FROM = 50_300_001


class Event(NamedTuple):
    """Something a webhook would tell: its name is the second half of the subscription's type."""

    kind: ObjectType
    record_id: int
    name: str
    at_ms: int
    source: Source
    fields: dict[str, Any]


def steady_clock() -> Callable[[], float]:
    """Seconds since the epoch that never step back, whatever happens to the machine's clock."""
    wall, mono = time.time(), time.monotonic()
    return lambda: wall + time.monotonic() - mono


class Portal:
    """The portal's state; one event loop owns it, so each method is one step nobody sees half done."""

    def __init__(self, settings: Settings, clock: Callable[[], float] | None = None) -> None:
        self.initial = settings
        # Counts writes, so that whoever saves the state knows whether there is anything new.
        self.version = 0
        self.epoch = 0
        self._clock = clock or steady_clock()
        self.reset()

    def reset(self) -> None:
        """Start over: no records, the default definitions, the settings given at start."""
        self.settings = self.initial
        self.version += 1
        self.epoch += 1
        self.stores: dict[str, RecordStore] = {}
        self.link_types = {one.type_id: one for one in link_types()}
        self.blocked_emails: set[str] = set()
        self.rules = Rules()
        self.limiter = Limiter(self.settings.time_zone)
        self.stats = Stats()
        self.listener: Callable[[Event], None] | None = None
        for kind in object_types():
            self.add_type(kind)
        self.configure()

    def configure(self, **changes: Any) -> None:
        """Change settings while running."""
        self.settings = replace(self.settings, **changes)
        self.limits = self.settings.resolved_limits()
        for store in self.stores.values():
            store.index.lag_s = self.settings.search_lag_s

    def now_s(self) -> float:
        """The portal's time."""
        return self._clock() + self.settings.clock_offset_s

    def now_ms(self) -> int:
        """The portal's time in the unit of its histories."""
        return int(self.now_s() * 1000)

    # -- definitions -------------------------------------------------------------------------------

    def add_type(self, kind: ObjectType) -> RecordStore:
        """Add an object type, empty."""
        store = RecordStore(kind, first_id=FIRST_ID)
        store.index.lag_s = self.settings.search_lag_s
        self.stores[kind.type_id] = store
        return store

    def new_type_id(self) -> str:
        """The id of the next custom object."""
        taken_ids = [int(one.removeprefix("2-")) for one in self.stores if one.startswith("2-")]
        return f"2-{max([CUSTOM_TYPE_FROM, *(one + 1 for one in taken_ids)])}"

    def new_type(
        self, *, name: str, singular: str, plural: str, primary: str, more: Iterable[Property]
    ) -> ObjectType:
        """A custom object with the properties every custom object has."""
        group = f"{name}_information"
        every = [*more, *system_properties(custom=True, group=group)]
        return ObjectType(
            type_id=self.new_type_id(),
            name=name,
            singular=singular,
            plural=plural,
            primary=primary,
            properties={one.name: one for one in every},
            created_ms=self.now_ms(),
        )

    def store(self, name: str) -> RecordStore:
        """The store of a type by its id, its name or its fully qualified name."""
        found = self.stores.get(name)
        if found is not None:
            return found
        wanted = name.lower()
        for store in self.stores.values():
            kind = store.kind
            if wanted in {
                kind.name.lower(),
                kind.singular.lower(),
                kind.full_name(self.settings.portal_id).lower(),
            }:
                return store
        raise unknown_type(name)

    # -- values ------------------------------------------------------------------------------------

    def value(self, store: RecordStore, record: Record, name: str) -> str | None:
        """A property's text as the API shows it, roll-ups included."""
        prop = store.kind.properties.get(name)
        if prop is not None and prop.rollup is not None:
            other_type, other_name = prop.rollup
            other = self.stores.get(other_type)
            for other_id in (record.links or {}).get(other_type, {}):
                linked = other.live(other_id) if other else None
                if linked is not None and other is not None:
                    return other.value(linked, other_name)
            return None
        text = store.value(record, name)
        if text is None and not self.settings.cleared_reads_null and name in (record.history or {}):
            return ""
        return text

    def checked(
        self, store: RecordStore, record: Record | None, properties: Mapping[str, Raw], *, typed: bool = True
    ) -> dict[str, str]:
        """The values to store; ApiError 400 naming every bad one.

        `typed=False` takes any text (a back door edit).
        """
        good: dict[str, str] = {}
        faults: list[tuple[str, str, str]] = []
        for name, raw in properties.items():
            prop = store.kind.properties.get(name)
            text = as_text(raw)
            if prop is None:
                faults.append((name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist'))
            elif prop.read_only or prop.rollup is not None:
                sentence = f'"{name}" is a read only property; its value cannot be set.'
                faults.append((name, "READ_ONLY_VALUE", sentence))
            else:
                try:
                    good[name] = self._checked_one(store, record, prop, text) if typed and text else text
                    self._refuse_blocked(store, name, good[name])
                except BadValueError as error:
                    faults.append((name, error.code, error.message))
        if faults:
            raise bad_values(self.settings.portal_id, faults)
        return good

    def _checked_one(self, store: RecordStore, record: Record | None, prop: Property, text: str) -> str:
        if prop.name == "email" and not store.kind.custom:
            good = checked_email(text)
        else:
            old = store.value(record, prop.name) if record is not None else None
            good = checked(text, kind=prop.type, field=prop.field, options=prop.options, old=old)
        for rule in self.rules.of(store.kind.type_id, prop.name):
            rule.demand(good)
        return good

    def _refuse_blocked(self, store: RecordStore, name: str, text: str) -> None:
        if name == "email" and self.blocked_emails and text in self.blocked_emails and not store.kind.custom:
            sentence = f"Email address {text} was deleted for privacy and cannot be used"
            raise BadValueError("BLOCKED_EMAIL", sentence)

    # -- writes ------------------------------------------------------------------------------------

    def create(self, store: RecordStore, values: Mapping[str, str], *, at_ms: int, source: Source) -> Record:
        """Create a record; ApiError 409 for a known e-mail, 400 for another taken value."""
        self.refuse_create(store, values)
        self.version += 1
        store.index.advance(self.now_s())
        record = store.add(values, at_ms=at_ms, source=source, skew_ms=self.settings.stamp_skew_ms)
        self.tell(store, record.id, "creation", at_ms=at_ms, source=source)
        return record

    def refuse_create(self, store: RecordStore, values: Mapping[str, str]) -> None:
        """Raise what creating a record from these values would raise, and write nothing."""
        missing = [name for name in store.kind.required if not values.get(name)]
        if missing:
            raise ApiError(
                400,
                f"Error creating {store.kind.shout}. Some required properties were not set.",
                category="VALIDATION_ERROR",
                context={"properties": missing},
            )
        try:
            store.refuse_taken(None, values)
        except TakenError as error:
            if error.name in {"email", "hs_additional_emails"} and not store.kind.custom:
                raise contact_exists(error.owner_id) from None
            raise self._taken(store, error, store.next_id) from None

    def update(
        self, store: RecordStore, record: Record, values: Mapping[str, str], *, at_ms: int, source: Source
    ) -> list[str]:
        """Write checked values; ApiError 400 for a unique value that another record holds."""
        self.refuse_update(store, record, values)
        self.version += 1
        store.index.advance(self.now_s())
        names = store.write(
            record,
            values,
            at_ms=at_ms,
            source=source,
            keep=self.settings.history_limit,
            same_value_entry=self.settings.same_value_entry,
            skew_ms=self.settings.stamp_skew_ms,
        )
        for name in names:
            fields = {"propertyName": name, "propertyValue": values[name]}
            self.tell(store, record.id, "propertyChange", at_ms=at_ms, source=source, **fields)
        return names

    def refuse_update(self, store: RecordStore, record: Record, values: Mapping[str, str]) -> None:
        """Raise what writing these values would raise, and write nothing."""
        try:
            store.refuse_taken(record, values)
        except TakenError as error:
            raise self._taken(store, error, record.id) from None

    def archive(self, store: RecordStore, record: Record, *, at_ms: int, source: Source) -> None:
        """Archive a live record."""
        self.version += 1
        store.index.advance(self.now_s())
        store.archive(record, at_ms=at_ms)
        self.tell(store, record.id, "deletion", at_ms=at_ms, source=source)

    def restore(self, store: RecordStore, record: Record, *, at_ms: int, source: Source) -> None:
        """Bring an archived record back."""
        self.version += 1
        store.index.advance(self.now_s())
        try:
            store.restore(record, at_ms=at_ms)
        except TakenError as error:
            raise self._taken(store, error, record.id) from None
        self.tell(store, record.id, "restore", at_ms=at_ms, source=source)

    def tell(
        self, store: RecordStore, record_id: int, event: str, *, at_ms: int, source: Source, **fields: Any
    ) -> None:
        """Let whoever listens know what happened to a record."""
        if self.listener is not None:
            self.listener(Event(store.kind, record_id, event, at_ms, source, fields))

    def _taken(self, store: RecordStore, error: TakenError, on_id: int) -> ApiError:
        text = store.kind.error_text
        number = self.settings.portal_id
        return taken(number, text, error.name, error.value, on_id=on_id, owner_id=error.owner_id)

    # -- answers -----------------------------------------------------------------------------------

    def shown_names(self, store: RecordStore, asked: Sequence[str]) -> list[str]:
        """The properties an answer holds: those asked for that exist, and the system's."""
        kind = store.kind
        names = [kind.created_name, "hs_object_id", kind.modified_name]
        extra = list(asked) if asked else ([] if kind.custom else ["email", "firstname", "lastname"])
        return list(dict.fromkeys([*names, *(name for name in extra if name in kind.properties)]))

    def answer(
        self, store: RecordStore, record: Record, names: Sequence[str], history: Sequence[str] = ()
    ) -> dict[str, Any]:
        """A record as the objects API shows it."""
        shown: dict[str, Any] = {
            "id": str(record.id),
            "properties": {name: self.value(store, record, name) for name in names},
            "createdAt": iso(record.created_ms),
            "updatedAt": iso(record.modified_ms),
            "archived": record.archived_ms is not None,
        }
        if record.archived_ms is not None:
            shown["archivedAt"] = iso(record.archived_ms)
        if history:
            limit_ms = self.now_ms() - self.settings.history_lag_ms
            shown["propertiesWithHistory"] = {
                name: [
                    _entry_answer(entry)
                    for entry in reversed(store.entries(record, name))
                    if not self.settings.history_lag_ms or entry.at_ms <= limit_ms
                ]
                for name in history
                if name in store.kind.properties
            }
        return shown


def app_id(token: str) -> int:
    """The id of the app a token stands for; each token is its own app."""
    return 1_000_000 + crc32(token.encode()) % 9_000_000


def user_number(user: str) -> int:
    """The user id HubSpot's histories carry for a person known by a name or an address."""
    number = whole_id(user)
    return 10_000_000 + crc32(user.encode()) % 80_000_000 if number is None else number


def _entry_answer(entry: Entry) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "value": entry.value,
        "timestamp": iso(entry.at_ms),
        "sourceType": entry.source.kind,
        "sourceId": entry.source.source_id,
    }
    if entry.source.user is not None:
        shown["updatedByUserId"] = user_number(entry.source.user)
        if whole_id(entry.source.user) is None:
            shown["sourceLabel"] = entry.source.user
    return shown
