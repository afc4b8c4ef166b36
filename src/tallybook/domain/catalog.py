"""What can be bought and booked: the catalog, read from a TOML file and checked in full."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from importlib import resources

from tallybook.domain.catalog_source import CatalogSource, CatalogTable, all_different, suggestion
from tallybook.domain.clock import zone_of
from tallybook.domain.errors import ActionNotFound, InvalidMockType, SetupError, ValidationError

ADMIN_OVERRIDE = "Admin Override"
"""What stands as token on a booking that no credit paid for."""

ASKS = ("dominant_hand", "attending_location")
LARGEST_NUMBER = 2_147_483_647  # PostgreSQL's integer.
_YEAR_MIN = 366 * 24 * 60
_TAKEN_PROPERTIES = frozenset(
    ("student_id", "email", "firstname", "lastname", "ndecc_exam_date", "tallybook_id", "tallybook_sync")
)


class PrerequisiteRule(StrEnum):
    """Which of a session's prerequisites a student needs, and whether a booking is enough."""

    ANY_BOOKED = "any_booked"
    ALL_BOOKED = "all_booked"
    ANY_ATTENDED = "any_attended"
    ALL_ATTENDED = "all_attended"


class RefundRule(StrEnum):
    """When a cancelled booking gives its credit back."""

    ALWAYS = "always"
    BEFORE_CUTOFF = "before_cutoff"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class CreditType:
    """A kind of prepaid credit with its own balance; mirrored when it has a HubSpot property."""

    name: str
    token_name: str
    hubspot_property: str | None
    welcome_credits: int
    largest_balance: int

    @property
    def is_mirrored(self) -> bool:
        """Whether HubSpot shows the balance, so that a missing one means unknown and never 0."""
        return self.hubspot_property is not None


@dataclass(frozen=True, slots=True)
class MockType:
    """What can be booked, how it is paid and by which rules. Minutes count back from the start."""

    name: str
    pays_with: tuple[str, ...]
    asks: tuple[str, ...]
    prerequisite_rule: PrerequisiteRule
    booking_closes_min: int
    cancellation_closes_min: int
    refund_rule: RefundRule
    refund_cutoff_min: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where sessions take place, and which clock hangs on the wall there."""

    name: str
    time_zone: str


@dataclass(frozen=True, slots=True)
class Action:
    """A metered action of another application and its price."""

    name: str
    credit_type: str
    cost_credits: int


@dataclass(frozen=True, slots=True)
class Pack:
    """A number of credits sold together."""

    name: str
    credit_type: str
    credits: int


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything of one catalog file after price overrides, in its order; `hash` names the content."""

    credit_types: tuple[CreditType, ...]
    mock_types: tuple[MockType, ...]
    places: tuple[Place, ...]
    actions: tuple[Action, ...]
    packs: tuple[Pack, ...]
    hash: str

    @property
    def mirrored_credit_types(self) -> tuple[CreditType, ...]:
        """The credit types whose balances HubSpot shows."""
        return tuple(credit_type for credit_type in self.credit_types if credit_type.is_mirrored)

    def credit_type(self, name: str) -> CreditType:
        """The credit type of this name. Raises ValidationError."""
        for credit_type in self.credit_types:
            if credit_type.name == name:
                return credit_type
        known = ", ".join(credit_type.name for credit_type in self.credit_types)
        raise ValidationError(
            f"There is no credit type {name!r}. Known: {known}.",
            field="credit_type",
            problem="unknown credit type",
        )

    def credit_type_of_token(self, token_name: str) -> CreditType | None:
        """The credit type that a booking's token names; None for Admin Override and for unknown text."""
        wanted = token_name.strip().casefold()
        return next((found for found in self.credit_types if found.token_name.casefold() == wanted), None)

    def mock_type(self, name: str) -> MockType:
        """The mock type of this name, upper and lower case alike. Raises InvalidMockType."""
        wanted = name.strip().casefold()
        for mock_type in self.mock_types:
            if mock_type.name.casefold() == wanted:
                return mock_type
        known = [mock_type.name for mock_type in self.mock_types]
        raise InvalidMockType(field="mock_type", problem="unknown mock type", known=known)

    def place(self, name: str) -> Place:
        """The place of this name, upper and lower case alike. Raises ValidationError."""
        wanted = name.strip().casefold()
        for place in self.places:
            if place.name.casefold() == wanted:
                return place
        known = ", ".join(place.name for place in self.places)
        raise ValidationError(
            f"There is no such place. Known: {known}.", field="location", problem="unknown place"
        )

    def action(self, name: str) -> Action:
        """The action of this name. Raises ActionNotFound."""
        for action in self.actions:
            if action.name == name:
                return action
        raise ActionNotFound(known=[action.name for action in self.actions])


def default_catalog_text() -> str:
    """The text of the catalog that ships in the package."""
    return resources.files("tallybook.domain").joinpath("catalog.toml").read_text(encoding="utf-8")


def default_catalog() -> Catalog:
    """The catalog that ships in the package, without price overrides."""
    return parse_catalog(default_catalog_text(), file="catalog.toml")


def parse_catalog(text: str, *, file: str, cost_overrides: Mapping[str, int] | None = None) -> Catalog:
    """The catalog of a TOML text, with prices replaced by `cost_overrides` (action name: credits).

    Raises SetupError of one line naming the file, the line and what is wrong.
    """
    source = CatalogSource(text, file=file)
    source.reject_unknown((), source.content, ("credit_types", "mock_types", "places", "actions", "packs"))
    credit_types = _credit_types(source)
    by_name = {credit_type.name: credit_type for credit_type in credit_types}
    catalog = Catalog(
        credit_types=credit_types,
        mock_types=_mock_types(source, tuple(by_name)),
        places=_places(source),
        actions=_with_overrides(_actions(source, by_name), cost_overrides or {}),
        packs=_packs(source, by_name),
        hash="",
    )
    return replace(catalog, hash=_hash(catalog))


def _hash(catalog: Catalog) -> str:
    # Comments and layout do not count; the order does, because pages show types and places in it.
    canonical = json.dumps(asdict(catalog), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _credit_types(source: CatalogSource) -> tuple[CreditType, ...]:
    found = [(table, _credit_type(table)) for table in source.tables("credit_types")]
    if not found:
        source.fail(("credit_types",), "there must be at least one [[credit_types]]")
    all_different(found, "name", lambda credit_type: credit_type.name)
    all_different(found, "token_name", lambda credit_type: credit_type.token_name)
    all_different(found, "hubspot_property", lambda credit_type: credit_type.hubspot_property)
    return tuple(credit_type for _, credit_type in found)


def _credit_type(table: CatalogTable) -> CreditType:
    table.only("name", "token_name", "hubspot_property", "welcome_credits", "largest_balance")
    name, token_name = table.word("name"), table.text("token_name")
    if token_name.casefold() == ADMIN_OVERRIDE.casefold():
        table.fail("token_name", f"token_name {ADMIN_OVERRIDE!r} is kept for bookings without a credit")
    mirrored = table.has("hubspot_property")
    hubspot_property = table.word("hubspot_property") if mirrored else None
    if hubspot_property in _TAKEN_PROPERTIES:
        table.fail("hubspot_property", f"hubspot_property {hubspot_property!r} is used for something else")
    largest = table.number(
        "largest_balance", least=1, most=LARGEST_NUMBER, default=9_999 if mirrored else 1_000_000
    )
    welcome = table.number("welcome_credits", least=0, most=largest, default=0)
    return CreditType(name, token_name, hubspot_property, welcome, largest)


def _mock_types(source: CatalogSource, credit_types: tuple[str, ...]) -> tuple[MockType, ...]:
    found = [(table, _mock_type(table, credit_types)) for table in source.tables("mock_types")]
    all_different(found, "name", lambda mock_type: mock_type.name)
    return tuple(mock_type for _, mock_type in found)


def _mock_type(table: CatalogTable, credit_types: tuple[str, ...]) -> MockType:
    table.only(
        "name",
        "pays_with",
        "asks",
        "prerequisite_rule",
        "booking_closes_min",
        "cancellation_closes_min",
        "refund_rule",
        "refund_cutoff_min",
    )
    name = table.text("name")
    pays_with = table.choices("pays_with", credit_types)
    if not pays_with:
        table.fail("pays_with", "pays_with must name at least one credit type")
    refund_rule = RefundRule(table.choice("refund_rule", tuple(RefundRule), default=RefundRule.ALWAYS))
    has_cutoff = table.has("refund_cutoff_min")
    if has_cutoff != (refund_rule is RefundRule.BEFORE_CUTOFF):
        key = "refund_cutoff_min" if has_cutoff else "refund_rule"
        table.fail(key, "refund_cutoff_min and refund_rule 'before_cutoff' go together")
    rule = table.choice("prerequisite_rule", tuple(PrerequisiteRule), default=PrerequisiteRule.ALL_BOOKED)
    return MockType(
        name=name,
        pays_with=pays_with,
        asks=table.choices("asks", ASKS, default=[]),
        prerequisite_rule=PrerequisiteRule(rule),
        booking_closes_min=table.number("booking_closes_min", least=0, most=_YEAR_MIN, default=0),
        cancellation_closes_min=table.number("cancellation_closes_min", least=0, most=_YEAR_MIN, default=0),
        refund_rule=refund_rule,
        refund_cutoff_min=table.number("refund_cutoff_min", least=0, most=_YEAR_MIN, default=0),
    )


def _places(source: CatalogSource) -> tuple[Place, ...]:
    found = [(table, _place(table)) for table in source.tables("places")]
    all_different(found, "name", lambda place: place.name)
    return tuple(place for _, place in found)


def _place(table: CatalogTable) -> Place:
    table.only("name", "time_zone")
    place = Place(table.text("name"), table.text("time_zone"))
    try:
        zone_of(place.time_zone)
    except ValidationError:
        table.fail(
            "time_zone", f"there is no time zone {place.time_zone!r}; write one such as America/Toronto"
        )
    return place


def _actions(source: CatalogSource, credit_types: Mapping[str, CreditType]) -> tuple[Action, ...]:
    found: list[tuple[CatalogTable, Action]] = []
    for table in source.tables("actions"):
        table.only("name", "credit_type", "cost_credits")
        name = table.word("name")
        credit_type = table.choice("credit_type", tuple(credit_types))
        cost = table.number("cost_credits", least=1, most=credit_types[credit_type].largest_balance)
        found.append((table, Action(name, credit_type, cost)))
    all_different(found, "name", lambda action: action.name)
    return tuple(action for _, action in found)


def _packs(source: CatalogSource, credit_types: Mapping[str, CreditType]) -> tuple[Pack, ...]:
    found: list[tuple[CatalogTable, Pack]] = []
    for table in source.tables("packs"):
        table.only("name", "credit_type", "credits")
        name = table.word("name")
        credit_type = table.choice("credit_type", tuple(credit_types))
        size = table.number("credits", least=1, most=credit_types[credit_type].largest_balance)
        found.append((table, Pack(name, credit_type, size)))
    all_different(found, "name", lambda pack: pack.name)
    return tuple(pack for _, pack in found)


COST_PREFIX = "CREDIT_COST_"


def cost_overrides_of(environment: Mapping[str, str]) -> dict[str, int]:
    """The prices that `CREDIT_COST_<ACTION>` variables set: action name to credits. Raises SetupError."""
    overrides: dict[str, int] = {}
    for variable, text in environment.items():
        if not variable.upper().startswith(COST_PREFIX) or not text.strip():
            continue
        if not text.strip().isascii() or not text.strip().isdigit():
            raise SetupError(f"{variable} must be a whole number of credits from 1, not {text.strip()!r}.")
        overrides[variable[len(COST_PREFIX) :].lower()] = int(text)
    return overrides


def _with_overrides(actions: tuple[Action, ...], overrides: Mapping[str, int]) -> tuple[Action, ...]:
    known = tuple(action.name for action in actions)
    for name, cost in overrides.items():
        variable = f"{COST_PREFIX}{name.upper()}"
        if name not in known:
            raise SetupError(
                f"{variable} overrides an action the catalog does not have{suggestion(name, known)}."
            )
        if not 1 <= cost <= LARGEST_NUMBER:
            raise SetupError(f"{variable} must be a whole number of credits from 1, not {cost}.")
    return tuple(
        replace(action, cost_credits=overrides.get(action.name, action.cost_credits)) for action in actions
    )
