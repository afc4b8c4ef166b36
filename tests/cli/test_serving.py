"""`tallybook serve` as a supervisor sees it."""

import json
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.commands import fetch, served
from tallybook.postgres.migrate import migrations

STUDENT = {"student_id": "1599000", "email": "student0@example.com"}


def test_a_server_answers_and_stops_when_told(tallybook):
    """SIGTERM ends it with exit code 0 and without a word on standard error."""
    with served(tallybook) as (process, url):
        assert json.loads(fetch(f"{url}/readyz")[1])["data"] == {"status": "ready"}
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=10)
        assert process.returncode == 0
        assert said == ""
        assert fetch(f"{url}/healthz")[0] == 0


@pytest.mark.parametrize("variable", ["DATABASE_URL", "TALLYBOOK_SECRET_KEY", "TALLYBOOK_LOGIN_CODE"])
def test_a_server_refuses_to_start_without_what_has_no_default(tallybook, variable):
    """The one line names the setting."""
    assert f"{variable} is not set" in tallybook.error("serve", "--port", "0", **{variable: None})[0]


def test_a_short_secret_key_is_refused(tallybook):
    """At least 32 characters."""
    assert "at least 32 characters" in tallybook.error("serve", TALLYBOOK_SECRET_KEY="short")[0]


def test_mailed_codes_need_a_mail_server(tallybook):
    """Codes that nobody sends would lock every student out."""
    assert "TALLYBOOK_SMTP_URL" in tallybook.error("serve", "--port", "0", TALLYBOOK_LOGIN_CODE="email")[0]


def test_a_taken_port_is_one_clear_line(tallybook):
    """The line names address and port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error, hint = tallybook.error("serve", "--port", str(port))
    assert f"127.0.0.1:{port}" in error
    assert "--port" in hint


def test_a_server_never_migrates(tallybook, empty_database_uri):
    """It says what to run instead."""
    error, hint = tallybook.error("serve", "--port", "0", DATABASE_URL=empty_database_uri)
    assert "no Tallybook schema" in error
    assert hint == "hint: Run: tallybook migrate"


async def test_a_server_refuses_a_database_of_a_newer_release(tallybook, owner):
    """Below the schema's recorded minimum nothing runs."""
    await owner.execute(
        "insert into tallybook.schema_migrations (version, name, min_release)"
        " values ('29990101000000', 'x', '99.0.0')"
    )
    assert "needs Tallybook 99.0.0" in tallybook.error("serve", "--port", "0")[0]


async def test_readiness_names_what_is_missing(tallybook, owner):
    """A server whose schema fell behind says so, and is ready again when it is back."""
    last = migrations()[-1].version
    with served(tallybook) as (_, url):
        await owner.execute("delete from tallybook.schema_migrations where version = %s", (last,))
        status, body = fetch(f"{url}/readyz")
        assert status == 503
        assert "schema_behind" in body
        await owner.execute(
            "insert into tallybook.schema_migrations (version, name, min_release) values (%s, 'x', '0.1.0')",
            (last,),
        )
        await owner.execute("update tallybook.catalog_state set hash = 'another'")
        assert "catalog_differs" in fetch(f"{url}/readyz")[1]


def test_several_processes_share_one_port_and_one_set_of_figures(tallybook):
    """With two workers every scrape counts the requests of both."""
    with served(tallybook, "--workers", "2") as (process, url):
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: fetch(f"{url}/healthz")[0], range(60)))
        assert answers == [200] * 60
        wanted = 'tallybook_requests_total{method="GET",route="/healthz",status="200"} 60.0'
        for _ in range(6):
            assert wanted in fetch(f"{url}/metrics")[1]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=15)
        assert process.returncode == 0


def test_a_key_made_by_the_command_opens_the_server_until_it_is_revoked(tallybook, simulator):
    """`key create`, `key list`, `key revoke`, and a load test with the key."""
    settings = {"HUBSPOT_BASE_URL": simulator, "HS_PRIVATE_APP_TOKEN": "right"}
    tallybook("import", **settings)
    made = tallybook.json("key", "create", "front end", "--scope", "students")
    secret = made["key"].rpartition("_")[2]
    assert secret not in tallybook("key", "list").stdout
    check = {"method": "POST", "body": {**STUDENT, "mock_type": "Mini-mock"}}
    with served(tallybook, **settings) as (_, url):
        path = f"{url}/api/mock-exams/validate-credits"
        assert fetch(path, headers={"Authorization": f"Bearer {made['key']}"}, **check)[0] == 200
        assert fetch(path, headers={"Authorization": "Bearer tb_no_" + "x" * 40}, **check)[0] == 401
        found = tallybook.json(
            "loadtest", "60", "6", "--url", url, "--key", made["key"], "--interval-ms", "5"
        )
        assert (found["success"], found["failure"], found["rate_limited_429"]) == (60, 0, 0)
        assert found["min_ms"] <= found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] <= found["max_ms"]
        lost = tallybook(
            "loadtest", "3", "1", "--json", code=1, API_BASE_URL=url, TALLYBOOK_LOADTEST_KEY="no"
        )
        assert json.loads(lost.stdout)["by_status"] == {"401": 3}
    assert "revoked" in tallybook("key", "revoke", made["id"]).stdout
    with served(tallybook) as (_, url):
        path = f"{url}/api/mock-exams/validate-credits"
        assert fetch(path, headers={"Authorization": f"Bearer {made['key']}"}, **check)[0] == 401


def test_a_cron_address_runs_its_job(tallybook, simulator):
    """`sync-supabase` brings the students in and says how many; without the secret it is closed."""
    settings = {"CRON_SECRET": "tick", "HUBSPOT_BASE_URL": simulator, "HS_PRIVATE_APP_TOKEN": "right"}
    with served(tallybook, **settings) as (_, url):
        path = f"{url}/api/admin/cron/sync-supabase"
        assert fetch(path)[0] == 401
        status, body = fetch(f"{path}?max_s=20", headers={"Authorization": "Bearer tick"})
        data = json.loads(body)["data"]
        assert (status, data["done"], data["counts"]["students"]) == (200, True, 60)
        status, body = fetch(
            f"{url}/api/admin/cron/activate-scheduled-exams", headers={"Authorization": "Bearer tick"}
        )
        assert json.loads(body)["data"]["counts"] == {"opened": 0}


def test_misses_without_a_token_wait_instead_of_guessing(tallybook):
    """Without HS_PRIVATE_APP_TOKEN nobody calls HubSpot, and a student who is not stored is not told 0."""
    made = tallybook.json("key", "create", "front end", "--scope", "students")
    with served(tallybook) as (_, url):
        status, body = fetch(
            f"{url}/api/mock-exams/validate-credits",
            method="POST",
            body={**STUDENT, "mock_type": "Mini-mock"},
            headers={"Authorization": f"Bearer {made['key']}"},
        )
        assert status == 503
        assert json.loads(body)["error"]["code"] == "CRM_UNAVAILABLE"
