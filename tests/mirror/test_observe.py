"""TALLYBOOK_MODE=observe: imports, pulls and shows; decides nothing and writes nothing to HubSpot."""

import json
import re
from uuid import UUID

import pytest

from e2e.service import data_of, refused, serving
from support.commands import SECRET_KEY, CommandLine
from support.factories import balances, book, make_contact, make_mock_exam
from tallybook.api.route import is_closed_observing
from tallybook.api.routes import ROUTES

OPEN = {
    "POST /api/user/login",
    "POST /api/user/logout",
    "POST /api/mock-exams/validate-credits",
    "POST /api/mock-discussions/validate-credits",
    "POST /api/credits/check",
    # Hints of what changed in HubSpot: they are what is observed.
    "POST /api/webhooks/hubspot",
    # Staff looking after the mirror decide nothing about bookings or credits.
    "POST /api/admin/login",
    "POST /api/admin/logout",
    "POST /api/admin/sync/retry",
    "POST /api/admin/sync/reconcile",
    "POST /api/admin/sync/dead-letters/{type}/{letter}/retry",
    "POST /api/admin/sync/lanes/{lane}/resume",
    "DELETE /api/admin/cache/contact/{student_id}",
}
SESSION = (
    *("--type", "Mini-mock", "--date", "2099-01-05", "--start", "09:00", "--end", "12:00"),
    *("--location", "Calgary", "--capacity", "3"),
)
WRITES = re.compile(r"create|update|upsert|archive|merge|gdpr|patch|put|delete", re.IGNORECASE)


@pytest.fixture(scope="module")
async def observing(postgres_server, tmp_path_factory):
    """A service that observes, with a portal of forty students."""
    name = await postgres_server.create_database()
    directory = tmp_path_factory.mktemp("observing")
    async with serving(
        postgres_server.uri(name), directory, contacts=40, TALLYBOOK_MODE="observe"
    ) as service:
        yield service
    await postgres_server.drop_database(name)


@pytest.fixture
def tallybook(observing):
    """The command with the settings of the observing service."""
    return CommandLine(observing.directory, observing.environment | {"TALLYBOOK_SECRET_KEY": SECRET_KEY})


def test_whatever_may_decide_is_closed_but_for_what_is_named():
    """A new route with a method that changes things is closed until somebody opens it here."""
    closed = {f"{each.method} {each.path}" for each in ROUTES if is_closed_observing(each)}
    changing = {f"{each.method} {each.path}" for each in ROUTES if each.method != "GET"}
    assert closed == changing - OPEN
    assert {"POST /api/bookings/create", "DELETE /api/bookings/{booking}"} <= closed


async def test_students_can_sign_in_and_look_but_change_nothing(observing):
    """One code says why, and the database is as it was."""
    contact = await make_contact(observing.db, credits={"sj_credits": 2})
    exam = await make_mock_exam(observing.db)
    other = await make_mock_exam(observing.db, days=9)
    booking = await book(observing.db, contact, exam)
    who = await observing.sign_in(contact)
    checked = await observing.http.post(
        "/api/mock-exams/validate-credits",
        json={"mock_type": "Situational Judgment"},
        headers=who.headers,
    )
    assert data_of(checked)["available_credits"] == 1
    listed = await observing.http.get("/api/bookings/list", headers=who.headers)
    assert [each["id"] for each in data_of(listed)["bookings"]] == [booking["id"]]
    before = await observing.fingerprint()
    for method, path, body in (
        ("POST", "/api/bookings/create", {"mock_exam_id": str(other.id)}),
        ("POST", "/api/bookings/create", {"mock_exam_id": str(other.id), "dry_run": True}),
        ("DELETE", f"/api/bookings/{booking['id']}", {}),
        ("POST", f"/api/bookings/{booking['id']}/move", {"mock_exam_id": str(other.id)}),
        ("POST", "/api/bookings/batch-cancel", {"booking_ids": [booking["id"]]}),
        ("PUT", "/api/user/update-ndecc-date", {"ndecc_exam_date": "2099-01-01"}),
    ):
        answer = await observing.http.request(method, path, json=body, headers=who.headers)
        assert refused(answer, 403, "FORBIDDEN") == {"mode": "observe"}, path
    assert await observing.fingerprint() == before
    assert (await balances(observing.db, contact))["sj_credits"] == 1


async def test_strangers_are_told_to_sign_in_first(observing):
    """What mode this is, is nobody's business who may not come in."""
    answer = await observing.http.post("/api/bookings/create", json={"mock_exam_id": str(UUID(int=1))})
    assert answer.status_code == 401


async def test_misses_and_the_cron_addresses_bring_in_and_write_nothing_to_hubspot(observing):
    """Every student of the portal arrives; every call that left was one that reads."""
    assert data_of(await observing.check(observing.unmet()))["source"] == "hubspot"
    for job in ("sync-supabase", "activate-scheduled-exams"):
        done = await observing.http.get(
            f"/api/admin/cron/{job}",
            headers={"authorization": f"Bearer {observing.environment['CRON_SECRET']}"},
        )
        assert done.status_code == 200, done.text
    ((students,),) = await observing.run(
        "select count(*) from tallybook.contacts where hubspot_id is not null"
    )
    assert students >= 40
    calls = (await observing.simulator.calls())["calls"]
    assert calls
    assert [name for name, number in calls.items() if number and WRITES.search(name)] == []


async def test_a_scheduled_session_stays_as_the_other_system_has_it(observing):
    """Opening it is decided when it is read; recording that is the other system's."""
    await observing.run(
        "update tallybook.mock_exams set activation = 'scheduled', opens_at = now() - interval '1 hour'"
        " where id = %s",
        (exam := await make_mock_exam(observing.db, days=20)).id,
    )
    await observing.http.get(
        "/api/admin/cron/activate-scheduled-exams",
        headers={"authorization": f"Bearer {observing.environment['CRON_SECRET']}"},
    )
    ((activation,),) = await observing.run(
        "select activation from tallybook.mock_exams where id = %s", exam.id
    )
    assert activation == "scheduled"


async def test_the_commands_refuse_what_the_addresses_refuse(observing, tallybook):
    """Grants, bookings and sessions; looking and trying out stay open."""
    contact = await make_contact(observing.db, credits={"sj_credits": 1})
    exam = await make_mock_exam(observing.db, days=11)
    booking = await book(observing.db, contact, exam)
    who, why = str(contact.id), ("--reason", "x")
    before = await observing.fingerprint()
    for arguments in (
        ("contact", "grant", who, "sj_credits", "1", *why),
        ("booking", "create", who, str(exam.id), "--override", *why),
        ("booking", "cancel", booking["id"], *why),
        ("booking", "move", booking["id"], str(exam.id)),
        ("exam", "create", *SESSION),
    ):
        error, hint = tallybook.error(*arguments)
        assert "only watches" in error
        assert "TALLYBOOK_MODE=observe" in hint
    assert await observing.fingerprint() == before
    shown = tallybook.json("contact", "grant", who, "sj_credits", "1", *why, "--dry-run")
    assert shown["dry_run"] is True


def test_doctor_says_that_it_only_observes(tallybook):
    """So that nobody wonders why bookings are refused."""
    # The sign-in without a code is a red line of its own.
    findings = json.loads(tallybook("doctor", "--json", code=1).stdout)
    (mode,) = [each for each in findings if each["subject"] == "mode"]
    assert (mode["level"], "TALLYBOOK_MODE=observe" in mode["found"]) == ("warn", True)
