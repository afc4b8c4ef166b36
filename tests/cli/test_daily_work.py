"""What staff do at a terminal, from the import of students to a proved ledger."""

import base64

import pytest

from support.commands import fetch, served

EXAM = ("--type", "situational judgment", "--start", "09:00", "--end", "12:00", "--location", "Calgary")


@pytest.fixture
def imported(tallybook, simulator):
    """The command on a database with the simulator's students in it."""
    tallybook.settings |= {"HUBSPOT_BASE_URL": simulator, "HS_PRIVATE_APP_TOKEN": "right"}
    tallybook("import")
    return tallybook


def balances(tallybook, contact):
    return {
        each["credit_type"]: each["balance"] for each in tallybook.json("contact", "show", contact)["credits"]
    }


def test_an_import_shows_its_figures_and_repeating_it_changes_nothing(tallybook, simulator):
    """The dry run writes nothing; the second import adds no entry."""
    settings = {"HUBSPOT_BASE_URL": simulator, "HS_PRIVATE_APP_TOKEN": "right"}
    planned = tallybook.json("import", "--dry-run", **settings)
    assert (planned["students"], tallybook.json("stats")["students"]) == (60, 0)
    shown = tallybook("import", **settings).stdout
    assert f"{planned['with_any_credits']} ({100 * planned['with_any_credits'] / 60:.1f} %)" in shown
    before = tallybook.json("stats")
    assert (before["students"], before["with_any_credits"]) == (60, planned["with_any_credits"])
    tallybook("import", **settings)
    assert tallybook.json("stats") == before
    assert tallybook("verify").stdout.endswith("Every number is right.\n")


@pytest.mark.parametrize(("token", "named"), [(None, "is not set"), ("wrong", "refused")])
def test_an_import_without_the_right_token_names_the_setting(tallybook, simulator, token, named):
    """One line names HS_PRIVATE_APP_TOKEN."""
    error, _ = tallybook.error("import", HUBSPOT_BASE_URL=simulator, HS_PRIVATE_APP_TOKEN=token)
    assert "HS_PRIVATE_APP_TOKEN" in error
    assert named in error


async def test_two_imports_at_once_are_one(tallybook, simulator, owner):
    """While one holds the lease, another says so instead of mixing up where it stopped."""
    await owner.execute(
        "insert into tallybook.job_runs (job, lease_token, leased_until)"
        " values ('import', gen_random_uuid(), now() + interval '1 minute')"
    )
    settings = {"HUBSPOT_BASE_URL": simulator, "HS_PRIVATE_APP_TOKEN": "right"}
    assert "another import is running" in tallybook.error("import", **settings)[0]


def test_grants_are_signed_reasoned_and_bounded(imported):
    """A grant and a correction change the balance; one too many changes nothing."""
    had = balances(imported, "student:1599003")["sj_credits"]
    imported("contact", "grant", "student:1599003", "sj_credits", "3", "--reason", "paid by transfer")
    imported("contact", "grant", "email:student3@example.com", "sj_credits", "-1", "--reason", "typing error")
    planned = imported("contact", "grant", "student:1599003", "sj_credits", "5", "--reason", "x", "--dry-run")
    assert f"would be now {had + 7}" in planned.stdout
    error, _ = imported.error("contact", "grant", "student:1599003", "sj_credits", "-9999", "--reason", "x")
    assert "balance is too low" in error
    assert balances(imported, "student:1599003")["sj_credits"] == had + 2
    for contact in ("student:0", "nonsense", "email:nobody@example.com"):
        imported.error("contact", "grant", contact, "sj_credits", "1", "--reason", "x")
    assert "sj_credit" in imported.error("contact", "grant", "student:1599003", "sj", "1", "--reason", "x")[1]


def test_a_contact_is_refreshed_by_merging(imported):
    """Re-reading HubSpot keeps what was granted here."""
    had = balances(imported, "student:1599004")["cs_credits"]
    imported("contact", "grant", "student:1599004", "cs_credits", "2", "--reason", "gift")
    imported("contact", "refresh", "student:1599004")
    assert balances(imported, "student:1599004")["cs_credits"] == had + 2


def test_a_person_is_forgotten_only_when_somebody_means_it(imported):
    """Asked first; afterwards no name is left, the numbers are, and the ledger still adds up."""
    contact = imported.json("contact", "show", "student:1599004")["id"]
    had = balances(imported, contact)
    erase = ("contact", "erase", contact, "--reason", "asked for it")
    imported(*erase, stdin="n\n", code=130)
    assert imported.json("contact", "show", contact)["student_id"] == "1599004"
    assert imported(*erase, "--yes").stdout == f"{contact} is forgotten.\n"
    shown = imported.json("contact", "show", contact)
    assert (shown["student_id"], shown["email"], balances(imported, contact)) == (None, None, had)
    imported("contact", "show", "student:1599004", code=1)
    assert imported("verify").stdout.endswith("Every number is right.\n")


def test_a_session_is_created_booked_moved_and_cancelled(imported):
    """Paid booking, double click, move, preview and cancellation, with the credit back at the end."""
    first = imported.json("exam", "create", *EXAM, "--date", "2027-03-04", "--capacity", "2")["id"]
    second = imported.json("exam", "create", *EXAM, "--date", "2027-03-05", "--capacity", "2", "--set", "b")[
        "id"
    ]
    assert [each["id"] for each in imported.json("exam", "list", "--type", "Situational Judgment")] == [
        first,
        second,
    ]
    imported("contact", "grant", "student:1599001", "sj_credits", "1", "--reason", "gift")
    had = balances(imported, "student:1599001")
    imported("booking", "create", "student:1599001", first, "--dry-run")
    booked = imported.json("booking", "create", "student:1599001", first)
    assert booked["booking_id"] == "Situational Judgment-1599001-March 4, 2027"
    assert imported.json("booking", "create", "student:1599001", first)["idempotent"] is True
    moved = imported.json("booking", "move", booked["booking_id"], second)
    assert (moved["id"], moved["exam_date"]) == (booked["id"], "2027-03-05")
    assert imported.json("booking", "cancel", booked["id"], "--dry-run")["credits_restored"] == 1
    assert imported.json("booking", "show", booked["id"])["status"] == "Active"
    imported("booking", "cancel", booked["id"], "--reason", "ill")
    assert imported.json("booking", "show", booked["id"])["status"] == "Cancelled"
    assert balances(imported, "student:1599001") == had
    assert imported.json("verify")["ok"] is True


def test_an_override_needs_its_reason_and_spends_nothing(imported):
    """Staff may book without credit, never beyond capacity."""
    exam = imported.json("exam", "create", *EXAM, "--date", "2027-03-04", "--capacity", "1")["id"]
    had = balances(imported, "student:1599001")
    imported.error("booking", "create", "student:1599001", exam, "--override")
    booked = imported.json("booking", "create", "student:1599001", exam, "--override", "--reason", "promised")
    assert booked["token_used"] == "Admin Override"
    assert balances(imported, "student:1599001") == had
    error, _ = imported.error(
        "booking", "create", "student:1599002", exam, "--override", "--reason", "promised"
    )
    assert "full" in error


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--date": "2027-02-30"}, "exam_date"),
        ({"--date": "2027-03-14", "--start": "02:30"}, "clocks change"),
        ({"--location": "Atlantis"}, "no such place"),
        ({"--type": "Juggling"}, "no such mock type"),
        ({"--end": "08:00"}, "after the start"),
        ({"--capacity": "0"}, "capacity"),
        ({"--prerequisite": "12345"}, "no such mock exam"),
        ({"--opens-at": "2027-03-05 09:00"}, "before"),
    ],
)
def test_a_session_that_cannot_be_is_refused(tallybook, changes, said):
    """One line says what is wrong; nothing is stored."""
    given = {
        **dict(zip(EXAM[::2], EXAM[1::2], strict=True)),
        "--date": "2027-03-04",
        "--capacity": "2",
        **changes,
    }
    lines = tallybook.error("exam", "create", *(part for pair in given.items() for part in pair))
    assert said in " ".join(lines).lower()
    assert tallybook.json("exam", "list") == []


def test_a_scheduled_session_is_recorded_as_open_by_the_worker(tallybook):
    """Its minute has passed, so the job makes it active and notes it for HubSpot."""
    exam = ("exam", "create", *EXAM, "--date", "2027-03-04", "--capacity", "2")
    tallybook(*exam, "--opens-at", "2026-01-05 08:00")
    tallybook(*exam, "--set", "c", "--opens-at", "2027-03-01 08:00")
    assert '"opened":1' in tallybook("worker", "--once").stdout
    assert sorted(each["activation"] for each in tallybook.json("exam", "list")) == ["active", "scheduled"]
    assert "opened" not in tallybook("worker", "--once").stdout


def test_a_staff_account_is_added_from_a_pipe_and_opens_the_docs(tallybook):
    """The password is never an argument; a short one is refused; adding again changes role and password."""
    tallybook.error("staff", "add", "Boss@Example.com ", "--role", "admin", stdin="short\n")
    assert (
        "was added"
        in tallybook("staff", "add", "Boss@Example.com", "--role", "admin", stdin="correct horse\n").stdout
    )
    again = tallybook("staff", "add", "boss@example.com", "--role", "viewer", stdin="battery staple\n").stdout
    assert "new role" in again
    (account,) = tallybook.json("staff", "list")
    assert (account["email"], account["role"]) == ("boss@example.com", "viewer")
    with served(tallybook) as (_, url):
        assert fetch(f"{url}/docs")[0] == 401
        for password, status in (("battery staple", 200), ("correct horse", 401)):
            assert (
                fetch(f"{url}/docs", headers={"Authorization": _basic("boss@example.com", password)})[0]
                == status
            )


def _basic(email, password):
    return "Basic " + base64.b64encode(f"{email}:{password}".encode()).decode()
