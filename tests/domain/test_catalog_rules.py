"""The shipped catalog holds the contract's values, and a mistake is one line naming file, line and fault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.domain.catalog import (
    PrerequisiteRule,
    RefundRule,
    cost_overrides_of,
    default_catalog,
    default_catalog_text,
    parse_catalog,
)
from tallybook.domain.errors import ActionNotFound, InvalidMockType, SetupError, ValidationError

SMALL = """\
[[credit_types]]
name = "tea"
token_name = "Tea Token"

[[mock_types]]
name = "Tasting"
pays_with = ["tea"]

[[places]]
name = "Kitchen"
time_zone = "Europe/Berlin"

[[actions]]
name = "boil"
credit_type = "tea"
cost_credits = 1
"""


def mistake(text, **options):
    with pytest.raises(SetupError) as caught:
        parse_catalog(text, file="my.toml", **options)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_default_mock_types_pay_with_the_specific_credit_and_two_of_them_with_shared():
    """Situational Judgment and Clinical Skills fall back on shared credits; the other two do not."""
    assert {t.name: t.pays_with for t in default_catalog().mock_types} == {
        "Situational Judgment": ("sj_credits", "shared_mock_credits"),
        "Clinical Skills": ("cs_credits", "shared_mock_credits"),
        "Mini-mock": ("sjmini_credits",),
        "Mock Discussion": ("mock_discussion_token",),
    }


def test_default_forms_ask_the_hand_for_clinical_skills_and_the_place_for_two_types():
    """Mock Discussion asks nothing."""
    assert {t.name: t.asks for t in default_catalog().mock_types} == {
        "Situational Judgment": ("attending_location",),
        "Clinical Skills": ("dominant_hand",),
        "Mini-mock": ("attending_location",),
        "Mock Discussion": (),
    }


def test_default_rules_close_at_the_start_and_always_refund():
    """All prerequisites must be booked; booking and cancelling close with the start."""
    for mock_type in default_catalog().mock_types:
        assert mock_type.prerequisite_rule is PrerequisiteRule.ALL_BOOKED
        assert (mock_type.booking_closes_min, mock_type.cancellation_closes_min) == (0, 0)
        assert mock_type.refund_rule is RefundRule.ALWAYS


def test_default_credit_types_mirror_five_and_welcome_with_credits():
    """Five balances live in HubSpot; `credits` does not and starts at 100."""
    catalog = default_catalog()
    assert {t.name: t.token_name for t in catalog.mirrored_credit_types} == {
        "sj_credits": "Situational Judgment Token",
        "cs_credits": "Clinical Skills Token",
        "sjmini_credits": "Mini-mock Token",
        "mock_discussion_token": "Mock Discussion Token",
        "shared_mock_credits": "Shared Token",
    }
    assert all(
        t.hubspot_property == t.name and t.largest_balance == 9_999 for t in catalog.mirrored_credit_types
    )
    metered = catalog.credit_type("credits")
    assert (metered.is_mirrored, metered.welcome_credits, metered.largest_balance) == (False, 100, 1_000_000)


def test_default_prices_packs_and_places():
    """Four actions, three packs, eight places in three time zones."""
    catalog = default_catalog()
    assert {a.name: (a.credit_type, a.cost_credits) for a in catalog.actions} == {
        "audio_upload": ("credits", 2),
        "docx_processing": ("credits", 5),
        "txt_upload": ("credits", 3),
        "premium_export": ("credits", 15),
    }
    assert {p.name: p.credits for p in catalog.packs} == {
        "starter": 500,
        "creator": 1500,
        "professional": 3500,
    }
    zones = {p.name: p.time_zone for p in catalog.places}
    assert len(zones) == 8
    assert zones["Calgary"] == "America/Edmonton"
    assert zones["Vancouver"] == "America/Vancouver"
    assert {zone for name, zone in zones.items() if name not in ("Calgary", "Vancouver")} == {
        "America/Toronto"
    }


def test_a_price_from_the_environment_replaces_the_one_of_the_file():
    """CREDIT_COST_TXT_UPLOAD changes one price, and with it the hash."""
    text = default_catalog_text()
    overrides = cost_overrides_of(
        {"CREDIT_COST_TXT_UPLOAD": " 7 ", "CREDIT_COST_AUDIO_UPLOAD": "", "HOME": "/"}
    )
    changed = parse_catalog(text, file="c", cost_overrides=overrides)
    assert (changed.action("txt_upload").cost_credits, changed.action("audio_upload").cost_credits) == (7, 2)
    assert changed.hash != default_catalog().hash


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CREDIT_COST_TXT_UPLOAD", "-1", "CREDIT_COST_TXT_UPLOAD must be a whole number"),
        ("CREDIT_COST_TXT_UPLOAD", "0", "CREDIT_COST_TXT_UPLOAD must be a whole number"),
        ("CREDIT_COST_TXT_UPLOAD", "9999999999", "CREDIT_COST_TXT_UPLOAD must be a whole number"),
        ("CREDIT_COST_TXT_UPLAOD", "1", "did you mean 'txt_upload'"),
    ],
)
def test_a_wrong_price_override_names_its_variable(variable, value, said):
    """A bad number or a misspelt action stops the start with the variable's name."""
    with pytest.raises(SetupError, match=said):
        parse_catalog(default_catalog_text(), file="c", cost_overrides=cost_overrides_of({variable: value}))


def test_the_hash_ignores_layout_and_notices_content():
    """Comments and blank lines keep the hash; any value changes it."""
    before = parse_catalog(SMALL, file="a").hash
    assert parse_catalog("# note\n\n" + SMALL.replace("\n", "  # x\n"), file="b").hash == before
    assert parse_catalog(SMALL.replace("Kitchen", "Cellar"), file="a").hash != before


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("pays_with", "pays_whit", 7, "unknown key 'pays_whit'; did you mean 'pays_with'?"),
        ("[[mock_types]]", "[[mock_type]]", 5, "unknown key 'mock_type'; did you mean 'mock_types'?"),
        ('["tea"]', '["tee"]', 7, "pays_with has 'tee', which is not known; did you mean 'tea'?"),
        ('["tea"]', '[\n "tea",\n "tea"\n]', 9, "pays_with names 'tea' twice."),
        ('["tea"]', "[]", 7, "pays_with must name at least one credit type."),
        ('["tea"]', '"tea"', 7, "pays_with must be a list, not text."),
        ('["tea"]', '["tea"]\nasks = ["shoe_size"]', 8, "asks has 'shoe_size'"),
        ('["tea"]', '["tea"]\nrefund_rule = "allways"', 8, "did you mean 'always'?"),
        ('["tea"]', '["tea"]\nrefund_rule = "before_cutoff"', 8, "go together"),
        ('["tea"]', '["tea"]\nrefund_cutoff_min = 5', 8, "go together"),
        (
            '["tea"]',
            '["tea"]\nbooking_closes_min = -5',
            8,
            "booking_closes_min must be from 0 to 527040, not -5.",
        ),
        ('["tea"]', '["tea"]\nprerequisite_rule = "some"', 8, "prerequisite_rule 'some' is not known"),
        ("cost_credits = 1", "cost_credits = -1", 16, "cost_credits must be from 1 to 1000000, not -1."),
        ("cost_credits = 1", "cost_credits = true", 16, "cost_credits must be a number, not true or false."),
        ("cost_credits = 1", "", 13, "actions needs cost_credits."),
        ('credit_type = "tea"', 'credit_type = "coffee"', 15, "credit_type 'coffee' is not known"),
        ("Europe/Berlin", "Europe/Berln", 11, "there is no time zone 'Europe/Berln'"),
        ("Europe/Berlin", "../../etc/passwd", 11, "there is no time zone"),
        ('name = "tea"', 'name = "Tea Leaves"', 2, "name must be lower-case"),
        ('token_name = "Tea Token"', 'token_name = " Tea"', 3, "visible characters"),
        (
            'token_name = "Tea Token"',
            'token_name = "admin override"',
            3,
            "is kept for bookings without a credit",
        ),
        ('token_name = "Tea Token"', 'token_name = "T"\nwelcome_credits = 2000000', 4, "from 0 to 1000000"),
        (
            'token_name = "Tea Token"',
            'token_name = "T"\nhubspot_property = "email"',
            4,
            "used for something else",
        ),
        ('name = "Kitchen"', 'name = "Kitchen', 10, "this is not TOML: Illegal character"),
        ("[[places]]", "[places]", 9, "places must be written as [[places]] tables."),
        ("[[credit_types]]", "[[packs]]", 1, "there must be at least one [[credit_types]]."),
    ],
)
def test_a_mistake_is_named_with_file_line_and_fault(old, new, line, said):
    """One line a person can act on."""
    assert old in SMALL
    message = mistake(SMALL.replace(old, new, 1))
    assert message.startswith(f"my.toml, line {line}: ")
    assert said in message


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ('[[credit_types]]\nname = "tea"\ntoken_name = "Other"', 18),
        ('[[credit_types]]\nname = "milk"\ntoken_name = "tea token"', 19),
        ('[[mock_types]]\nname = "TASTING"\npays_with = ["tea"]', 18),
        ('[[places]]\nname = "kitchen"\ntime_zone = "UTC"', 18),
        ('[[actions]]\nname = "boil"\ncredit_type = "tea"\ncost_credits = 2', 18),
    ],
)
def test_a_name_may_stand_only_once(table, line):
    """Names that differ in case only are the same name to a person."""
    message = mistake(f"{SMALL}{table}\n")
    assert f"line {line}: " in message
    assert "for the second time" in message


def test_an_empty_file_has_no_credit_types():
    """Nothing to sell is a mistake, not a catalog."""
    assert "at least one [[credit_types]]" in mistake("")


def test_a_file_that_ends_in_the_middle_names_its_last_line():
    """tomllib says `end of document`; a person wants a number."""
    assert mistake('[[places]]\nname = """x\n').startswith("my.toml, line 2: this is not TOML")


@given(st.text(max_size=200) | st.integers(0, len(SMALL)).map(lambda cut: SMALL[:cut]))
def test_any_text_is_a_catalog_or_one_line(text):
    """No text brings anything but a catalog or a SetupError of one line."""
    message = "my.toml, line 0: fine"
    try:
        parse_catalog(text, file="my.toml")
    except SetupError as error:
        message = error.message
    assert message.startswith("my.toml, line ")
    assert len(message.splitlines()) == 1


def test_unknown_names_are_refused_with_what_is_known():
    """Each look-up refuses in its own code."""
    catalog = default_catalog()
    with pytest.raises(InvalidMockType) as caught:
        catalog.mock_type("Maxi-mock")
    assert "Mini-mock" in caught.value.details["known"]
    with pytest.raises(ValidationError):
        catalog.place("Atlantis")
    with pytest.raises(ValidationError):
        catalog.credit_type("gold")
    with pytest.raises(ActionNotFound):
        catalog.action("video_upload")


def test_a_token_names_its_credit_type_and_an_override_names_none():
    """Refunds follow the token, also the shared one that the old system forgot."""
    catalog = default_catalog()
    shared = catalog.credit_type_of_token("Shared Token")
    assert shared is not None
    assert shared.name == "shared_mock_credits"
    assert catalog.credit_type_of_token("Admin Override") is None
