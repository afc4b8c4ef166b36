"""The settings: one list, named in every error, never shown."""

import re
from pathlib import Path

import pytest

from tallybook.domain.errors import SetupError
from tallybook.settings import NOT_USED_YET, load_settings, variables

ROOT = Path(__file__).parents[2]
COSTS = {
    f"CREDIT_COST_{name}" for name in ("AUDIO_UPLOAD", "DOCX_PROCESSING", "TXT_UPLOAD", "PREMIUM_EXPORT")
}


def load(**environment):
    return load_settings(environment, env_file=None)


def test_the_example_file_lists_every_setting_and_nothing_else():
    """`.env.example` and the class have the same names, each once."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE)
    assert sorted(named) == sorted({*variables(), *COSTS})


def test_the_example_file_can_be_used_as_it_is_but_for_its_blanks():
    """A copy of `.env.example` is valid; what was left blank counts as not set."""
    settings = load_settings({}, env_file=ROOT / ".env.example")
    assert settings.tallybook_secret_key is None
    assert settings.warnings == ()


def test_what_is_not_used_yet_is_a_setting_all_the_same():
    """The list of unused settings names only settings."""
    assert set(NOT_USED_YET) <= set(variables())


def test_a_missing_setting_is_named_with_a_way_out():
    """The error says which setting it is, the hint what to do."""
    with pytest.raises(SetupError, match="DATABASE_URL is not set") as caught:
        load().needed("DATABASE_URL")
    assert "postgresql://" in caught.value.hint


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("TALLYBOOK_LOGIN_CODE", "mail"),
        ("TALLYBOOK_POOL_SIZE", "0"),
        ("TALLYBOOK_POOL_SIZE", "many"),
        ("TALLYBOOK_SECRET_KEY", "too short"),
        ("TALLYBOOK_TIME_ZONE", "Mars/Olympus"),
        ("HUBSPOT_BASE_URL", "api.hubapi.com"),
        ("DATABASE_URL", "localhost"),
        ("TALLYBOOK_EMBEDDED", "perhaps"),
        ("CREDIT_COST_AUDIO_UPLOAD", "-1"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_setting_and_not_the_value(variable, text):
    """The message names the variable; a secret that is wrong is not repeated."""
    with pytest.raises(SetupError) as caught:
        load(**{variable: text})
    assert variable in caught.value.message
    assert "\n" not in caught.value.message
    if variable in ("TALLYBOOK_SECRET_KEY", "DATABASE_URL"):
        assert text not in caught.value.message


def test_a_misspelt_setting_is_told_with_the_one_that_was_meant():
    """Unknown TALLYBOOK_ names are warnings; of other families only near misses are."""
    warnings = load(
        TALLYBOOK_LOGN_CODE="none", HUBSPOT_CALL_PER_10S="5", DATABASE_NAME="other", PATH="x"
    ).warnings
    assert [line.split()[0] for line in warnings] == ["HUBSPOT_CALL_PER_10S", "TALLYBOOK_LOGN_CODE"]
    assert "did you mean TALLYBOOK_LOGIN_CODE?" in warnings[1]


def test_a_setting_that_this_release_does_not_use_is_named_once():
    """Whoever sets it hears that nothing comes of it."""
    assert [line.split()[0] for line in load(SUPABASE_URL="https://x").warnings] == ["SUPABASE_URL"]


def test_the_environment_wins_over_the_file(tmp_path):
    """`.env` fills in what the environment does not say."""
    file = tmp_path / ".env"
    file.write_text("TALLYBOOK_POOL_SIZE=3\nTALLYBOOK_PROCESSES=5\nCRON_SECRET='a $b ${c}'\n")
    settings = load_settings({"TALLYBOOK_POOL_SIZE": "7"}, env_file=file)
    assert (settings.tallybook_pool_size, settings.tallybook_processes) == (7, 5)
    assert settings.text("CRON_SECRET") == "a $b ${c}"


def test_secrets_do_not_show_in_a_printed_settings_object():
    """Neither `repr` nor `str` contains a secret's text."""
    settings = load(TALLYBOOK_SECRET_KEY="s" * 40, DATABASE_URL="postgresql://u:hidden@h/d")
    assert "s" * 40 not in repr(settings) + str(settings)
    assert "hidden" not in repr(settings) + str(settings)


def test_two_databases_are_a_mistake():
    """DATABASE_URL and the embedded server together leave open which is meant."""
    with pytest.raises(SetupError, match="both set"):
        load(DATABASE_URL="postgresql://h/d", TALLYBOOK_EMBEDDED="1")
