"""`migrate`, `catalog` and `doctor` on real databases."""

import json
from pathlib import Path

from tallybook.postgres.migrate import migrations

DEFAULT_CATALOG = Path(__file__).parents[2] / "src/tallybook/domain/catalog.toml"


def levels(tallybook, *arguments, code=0, **settings):
    done = tallybook("doctor", "--json", *arguments, code=code, **settings)
    return json.loads(done.stdout)


def failures(findings):
    return {(each["subject"], each["found"]) for each in findings if each["level"] == "fail"}


async def test_migrate_brings_an_empty_database_up_and_repeating_it_changes_nothing(
    tallybook, empty_database_uri, connect
):
    """Dry run writes nothing; the first run applies all, the second none; the catalog comes along."""
    settings = {"DATABASE_URL": empty_database_uri}
    assert tallybook("migrate", "--dry-run", **settings).stdout.count("would apply") == len(migrations())
    assert f"0 applied, {len(migrations())} missing" in tallybook("migrate", "--status", **settings).stdout
    first = tallybook("migrate", **settings).stdout
    assert first.count("applied 2") == len(migrations())
    assert "The catalog was applied." in first
    second = tallybook("migrate", **settings).stdout
    assert second.splitlines() == ["The schema is up to date.", "The catalog is up to date."]
    connection = await connect(empty_database_uri)
    cursor = await connection.execute("select to_regnamespace('supabase_migrations')")
    assert (await cursor.fetchone())[0] is None


async def test_migrate_tells_supabase_only_when_asked(tallybook, empty_database_uri, connect):
    """With `--mark-supabase` its history has our versions, so that `supabase db push` skips them."""
    tallybook("migrate", "--mark-supabase", DATABASE_URL=empty_database_uri)
    connection = await connect(empty_database_uri)
    cursor = await connection.execute("select count(*) from supabase_migrations.schema_migrations")
    assert (await cursor.fetchone())[0] == len(migrations())


def test_a_catalog_with_a_mistake_names_file_line_and_mistake(tallybook, tmp_path):
    """Nothing is applied."""
    file = tmp_path / "mine.toml"
    file.write_text('[[credit_types]]\nname = "x"\ntoken_name = "X"\nhubspot_propertie = "x"\n')
    error, _ = tallybook.error("catalog", "apply", "--file", str(file))
    assert "mine.toml, line 4: unknown key 'hubspot_propertie'" in error


def test_a_server_refuses_another_catalog_until_it_is_applied(tallybook, tmp_path):
    """The catalog of the program and that of the database must be one; `catalog apply` makes them so."""
    file = tmp_path / "catalog.toml"
    text = DEFAULT_CATALOG.read_text(encoding="utf-8")
    file.write_text(text.replace("cost_credits = 2\n", "cost_credits = 3\n", 1), encoding="utf-8")
    settings = {"TALLYBOOK_CATALOG": str(file)}
    error, hint = tallybook.error("serve", "--port", "0", **settings)
    assert "another catalog" in error
    assert "tallybook catalog apply" in hint
    assert "The catalog was applied." in tallybook("catalog", "apply", **settings).stdout
    assert "another catalog" in tallybook.error("serve", "--port", "0")[0]


def test_catalog_check_shows_what_can_be_bought_without_a_database(command):
    """The packaged catalog is valid and needs nothing to be looked at."""
    found = command.json("catalog", "check")
    assert found["mock_types"] == ["Situational Judgment", "Clinical Skills", "Mini-mock", "Mock Discussion"]
    assert found["actions"]["audio_upload"] == 2


COMPLETE = {
    "TALLYBOOK_LOGIN_CODE": "email",
    "TALLYBOOK_SMTP_URL": "smtp://127.0.0.1:25",
    "TALLYBOOK_MAIL_FROM": "a@example.com",
    "HS_PRIVATE_APP_TOKEN": "right",
    "CRON_SECRET": "c",
}


def test_doctor_passes_a_complete_installation(tallybook, simulator):
    """With a mailed code, a token, a closed schema and a prepared portal nothing fails: exit code 0."""
    settings = COMPLETE | {"HUBSPOT_BASE_URL": simulator}
    findings = levels(tallybook, "--fix", "--yes", **settings)
    assert failures(findings) == set()
    subjects = {each["subject"] for each in findings if each["level"] == "ok"}
    assert {"settings", "database", "role", "schema", "rights", "catalog", "HubSpot"} <= subjects
    assert {"HubSpot contacts", "HubSpot mock exams", "HubSpot bookings"} <= subjects


def test_doctor_shows_its_plan_before_it_creates_a_property(tallybook, simulator):
    """The plan names the four properties and the portal; no means that nothing is created."""
    settings = COMPLETE | {"HUBSPOT_BASE_URL": simulator}
    refused = tallybook("doctor", "--fix", code=1, stdin="n\n", **settings)
    lines = [line.strip() for line in refused.stderr.splitlines() if line.startswith("  create ")]
    assert [line.partition(" in portal ")[0] for line in lines] == [
        "create tallybook_id (text, unique) of HubSpot's contacts",
        "create tallybook_sync (text) of HubSpot's contacts",
        "create tallybook_id (text, unique) of HubSpot's mock exams",
        "create tallybook_id (text, unique) of HubSpot's bookings",
    ]
    assert ("HubSpot contacts", "the property tallybook_id is missing") in failures(
        levels(tallybook, code=1, **settings)
    )
    tallybook("doctor", "--fix", stdin="y\n", **settings)
    assert failures(levels(tallybook, **settings)) == set()


def test_doctor_prepares_a_portal_before_there_is_a_database(command, simulator):
    """Only settings about the database fail afterwards."""
    settings = COMPLETE | {"HUBSPOT_BASE_URL": simulator}
    found = json.loads(command("doctor", "--fix", "--yes", "--json", code=1, **settings).stdout)
    assert {subject for subject, _ in failures(found)} == {"settings"}


def test_doctor_fails_an_open_door_and_a_wrong_token(tallybook, simulator):
    """Sign-in without a code is red, and so is a token that HubSpot refuses; each says what to do."""
    findings = levels(tallybook, code=1, HUBSPOT_BASE_URL=simulator, HS_PRIVATE_APP_TOKEN="wrong")
    assert {subject for subject, _ in failures(findings)} == {"sign-in", "HubSpot"}
    assert all(each["to_do"] for each in findings if each["level"] == "fail")


async def test_doctor_finds_a_right_too_many_and_takes_it_back(tallybook, owner):
    """A grant to `anon` is found by name; `--fix --yes` revokes it, `--fix` alone asks first."""
    await owner.execute("grant usage on schema tallybook to anon; grant select on tallybook.contacts to anon")
    found = failures(levels(tallybook, code=1))
    assert ("rights", "role anon can select contacts") in found
    tallybook("doctor", "--fix", code=1, stdin="n\n")
    assert ("rights", "role anon can select contacts") in failures(levels(tallybook, code=1))
    assert not any(
        subject == "rights" for subject, _ in failures(levels(tallybook, "--fix", "--yes", code=1))
    )


def test_doctor_migrates_an_empty_database_when_asked(tallybook, empty_database_uri):
    """`--fix --yes` applies schema and catalog."""
    settings = {"DATABASE_URL": empty_database_uri}
    assert any(subject == "schema" for subject, _ in failures(levels(tallybook, code=1, **settings)))
    after = failures(levels(tallybook, "--fix", "--yes", code=1, **settings))
    assert {subject for subject, _ in after} == {"sign-in"}
