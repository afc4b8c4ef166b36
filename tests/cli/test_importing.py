"""`tallybook import` on a simulated portal: statistics of all three types, and a dry run first."""

import json

import httpx
import pytest


@pytest.fixture
def with_portal(tallybook, simulator):
    """The command beside a portal with sixty contacts and eight mock exams."""
    httpx.post(f"{simulator}/_simulator/populate", json={"mock_exams": 8}, trust_env=False).raise_for_status()
    return lambda *arguments: tallybook(*arguments, HS_PRIVATE_APP_TOKEN="right", HUBSPOT_BASE_URL=simulator)


def test_a_dry_run_reports_and_writes_nothing(with_portal):
    """The same figures as the real one, as often as it is asked."""
    for _ in range(2):
        done = with_portal("import", "--dry-run", "--json")
        shown = json.loads(done.stdout)
        assert (shown["students"], shown["mock_exams"]["read"], shown["bookings"]["read"]) == (60, 8, 0)
        assert shown["mock_exams"]["sessions"]["Clinical Skills"] == 2
    assert "0 " in with_portal("stats").stdout


def test_an_import_shows_all_three_types(with_portal):
    """Students with their credits, mock exams by type, bookings by status; also the second time."""
    for _ in range(2):
        done = with_portal("import")
        assert done.returncode == 0, done.stderr
        lines = {line.split(":")[0].strip(): line for line in done.stdout.splitlines()}
        assert done.stdout.startswith("60 students imported in ")
        assert lines["Contacts with any credits"].rstrip().endswith("%)")
        assert lines["Mock exams read"].split(":")[1].split()[0] == "8,"
        assert lines["Mock exams of Mini-mock"].split()[-1] == "2"
        assert lines["Bookings read"].split()[-1] == "0"
