"""The back door: edits with history, faults, filling and starting over; and the process around it."""

import base64
import hashlib
import hmac
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from hubspot_simulator import state
from hubspot_simulator.app import _loopback
from hubspot_simulator.portal import Portal
from hubspot_simulator.settings import Settings

CONTACTS = "/crm/v3/objects/contacts"
BALANCES = ("sj_credits", "cs_credits", "sjmini_credits", "mock_discussion_token", "shared_mock_credits")


def test_contact_i_is_known_beforehand(serve):
    """Contact 0 has fixed balances; two of three have credits; the seed decides."""
    portal = serve(contacts=300)
    page = portal.http.get(
        CONTACTS, params={"limit": 100, "properties": ["student_id,email", *BALANCES]}
    ).json()
    rows = [one["properties"] for one in page["results"]]
    assert [rows[0][name] for name in BALANCES] == ["5", "3", "2", "2", "1"]
    assert (rows[42]["student_id"], rows[42]["email"]) == ("1599042", "student42@example.com")
    assert {value for row in rows for value in (row[name] for name in BALANCES)} <= {
        None,
        *map(str, range(11)),
    }
    rich = sum(any(int(row[name] or 0) for name in BALANCES) for row in rows)
    assert 55 <= rich <= 78, rich
    other = serve(contacts=50)
    assert other.http.get(CONTACTS, params={"limit": 50}).json()["results"] == _first(portal, 50)


def _first(portal, count):
    return portal.http.get(CONTACTS, params={"limit": count}).json()["results"]


def test_mock_exams_cover_the_four_types_and_the_coming_weeks(portal):
    """Times are epoch milliseconds of that day in Toronto; Mini-mocks have no set."""
    names = "mock_type,mock_set,exam_date,start_time,end_time,capacity,total_bookings,is_active,location"
    page = portal.http.get("/crm/v3/objects/mock_exams", params={"limit": 50, "properties": names}).json()
    rows = [one["properties"] for one in page["results"]]
    assert len(rows) == 8
    assert len({row["mock_type"] for row in rows}) == 4
    for row in rows:
        assert (row["mock_set"] is None) == (row["mock_type"] == "Mini-mock")
        assert row["is_active"] == "true"
        assert int(row["start_time"]) < int(row["end_time"])
        assert int(row["start_time"]) > time.time() * 1000
        assert int(row["capacity"]) > int(row["total_bookings"]) == 0


def test_an_edit_is_a_persons_and_holds_its_expectation(portal):
    """409 when the value is no longer the expected one; otherwise history names the person."""
    [one] = portal.ids(limit=1)
    edit = {
        "object_type": "contacts",
        "id": one,
        "user": "anna@example.com",
        "properties": {"sj_credits": "9"},
    }
    refused = portal.post("/_simulator/edits", {**edit, "expect": {"sj_credits": "4"}})
    assert refused.status_code == 409
    done = portal.post("/_simulator/edits", {**edit, "expect": {"sj_credits": "5"}})
    assert done.status_code == 200
    record = portal.door("GET", f"records/contacts/{one}").json()
    assert record["properties"]["sj_credits"] == "9"
    newest, oldest = record["history"]["sj_credits"]
    assert (newest["value"], newest["sourceType"], newest["user"]) == ("9", "CRM_UI", "anna@example.com")
    assert (oldest["value"], oldest["sourceType"]) == ("5", "IMPORT")


def test_an_edit_may_leave_text_no_api_would_take(portal):
    """Old data can hold `12abc` in a number; the API refuses to write it and shows it all the same."""
    [one] = portal.ids(limit=1)
    portal.door("POST", "edits", object_type="contacts", id=one, properties={"sj_credits": "12abc"})
    shown = portal.http.get(f"{CONTACTS}/{one}", params={"properties": "sj_credits"}).json()
    assert shown["properties"]["sj_credits"] == "12abc"


def test_an_edit_without_id_creates_and_archives_and_restores(portal):
    """What a person does by hand in the CRM."""
    made = portal.door("POST", "edits", object_type="contacts", properties={"email": "hand@x.io"}).json()
    for archived, status in ((True, 404), (False, 200)):
        portal.door("POST", "edits", object_type="contacts", id=made["id"], archived=archived)
        assert portal.http.get(f"{CONTACTS}/{made['id']}").status_code == status


def test_reset_starts_over_and_populate_fills_an_empty_portal(portal):
    """After a reset the same filling gives the same records; filling twice is refused."""
    before = _first(portal, 10)
    assert portal.post("/_simulator/populate", {"contacts": 5}).status_code == 409
    portal.door("POST", "settings", latency_ms=1)
    portal.door("POST", "reset")
    assert portal.ids() == []
    assert portal.door("GET", "settings").json()["latency_ms"] == 0
    assert portal.door("POST", "populate", contacts=10, mock_exams=2).json() == {
        "contacts": 10,
        "mock_exams": 2,
        "bookings": 0,
    }
    assert _first(portal, 10) == before


def test_a_fault_can_apply_first_and_answer_502(portal):
    """The write is there although the answer says otherwise, twice, and then the fault is over."""
    fault = {"path": "batch/update$", "status": 502, "times": 2, "apply_first": True}
    portal.post("/_simulator/faults", fault)
    [one] = portal.ids(limit=1)
    statuses = []
    for value in ("1", "2", "3"):
        rows = {"inputs": [{"id": one, "properties": {"cs_credits": value}}]}
        statuses.append(portal.post(f"{CONTACTS}/batch/update", rows).status_code)
        shown = portal.http.get(f"{CONTACTS}/{one}", params={"properties": "cs_credits"}).json()
        assert shown["properties"]["cs_credits"] == value
    assert statuses == [502, 502, 200]
    assert portal.door("GET", "stats").json()["faults"] == 2


def test_a_fault_can_cut_the_connection_before_or_after_applying(portal):
    """The client sees no answer at all; whether the record exists is the fault's choice."""
    for apply_first, found in ((False, 404), (True, 200)):
        portal.post("/_simulator/faults", {"path": "contacts$", "cut": True, "apply_first": apply_first})
        with pytest.raises(httpx.TransportError):
            portal.post(CONTACTS, {"properties": {"email": "cut@x.io"}})
        assert portal.http.get(f"{CONTACTS}/cut@x.io", params={"idProperty": "email"}).status_code == found


def test_a_write_can_land_after_its_answer(portal):
    """The caller is told 504, and later the value is there."""
    [one] = portal.ids(limit=1)
    portal.post("/_simulator/faults", {"path": one, "status": 504, "late_apply_ms": 150, "method": "PATCH"})
    url = f"{CONTACTS}/{one}"
    assert portal.http.patch(url, json={"properties": {"cs_credits": "8"}}).status_code == 504
    assert portal.door("GET", f"records/contacts/{one}").json()["properties"]["cs_credits"] == "3"
    deadline = time.monotonic() + 5
    while portal.door("GET", f"records/contacts/{one}").json()["properties"]["cs_credits"] != "8":
        assert time.monotonic() < deadline


def test_latency_is_half_before_and_half_after_applying(serve):
    """After half the time the write is there and the answer is not."""
    portal = serve(contacts=1)
    [one] = portal.ids()
    portal.door("POST", "settings", latency_ms=600)
    took = []

    def write():
        start = time.monotonic()
        portal.http.patch(f"{CONTACTS}/{one}", json={"properties": {"cs_credits": "8"}})
        took.append(time.monotonic() - start)

    thread = threading.Thread(target=write)
    thread.start()
    start = time.monotonic()
    while portal.door("GET", f"records/contacts/{one}").json()["properties"]["cs_credits"] != "8":
        assert time.monotonic() - start < 5
    applied = time.monotonic() - start
    thread.join()
    assert 0.25 < applied < took[0] - 0.2, (applied, took)
    assert took[0] >= 0.6


def test_a_token_is_needed_and_may_be_fixed(serve):
    """401 in HubSpot's words for none and, where one is set, for another; the back door needs none."""
    portal = serve(token="right")
    bare = httpx.Client(base_url=portal.url)
    for answer in (bare.get(CONTACTS), portal.http.get(CONTACTS)):
        assert (answer.status_code, answer.json()["category"]) == (401, "INVALID_AUTHENTICATION")
        assert answer.json()["message"].startswith("Authentication credentials not found.")
    assert bare.get(CONTACTS, headers={"authorization": "Bearer right"}).status_code == 200
    assert bare.get("/_simulator/stats").json()["rejected_401"] == 2
    bare.close()


@pytest.mark.parametrize(
    ("client", "inside"),
    [
        (("127.0.0.1", 1), True),
        (("127.8.8.8", 1), True),
        (("::1", 1), True),
        (("::ffff:127.0.0.1", 1), True),
        (("10.0.0.1", 1), False),
        (("::ffff:10.0.0.1", 1), False),
        (("localhost.evil", 1), False),
        (None, False),
    ],
)
def test_the_back_door_is_open_on_loopback_only(client, inside):
    """Whatever the address is written like."""
    assert _loopback(client) is inside


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("populate", {"contact": 5}),
        ("settings", {"limits": "endless"}),
        ("settings", {"latency": 5}),
        ("settings", {"advance_s": -5}),
        ("faults", {"path": "("}),
        ("edits", {"object_type": "contacts", "id": "1"}),
        ("nothing", {}),
    ],
)
def test_a_slip_at_the_back_door_is_an_error(portal, path, body):
    """A misspelt field must not pass for a test that proves something."""
    assert portal.post(f"/_simulator/{path}", body).status_code in {400, 404}


def test_state_survives_and_a_broken_file_is_named(tmp_path):
    """Records, histories, associations and properties come back; a file cut short is refused."""
    path = tmp_path / "portal.state"
    portal = Portal(Settings(contacts=5))
    contacts, bookings = portal.store("contacts"), portal.store("bookings")
    from hubspot_simulator.links import link, linked
    from hubspot_simulator.populate import IMPORT, populate_contacts

    populate_contacts(portal, 5, seed=1)
    one = contacts.records[0]
    portal.update(contacts, one, {"sj_credits": "9"}, at_ms=portal.now_ms(), source=IMPORT)
    portal.archive(contacts, contacts.records[1], at_ms=portal.now_ms(), source=IMPORT)
    booking = portal.create(bookings, {"booking_id": "b"}, at_ms=portal.now_ms(), source=IMPORT)
    link(portal, (bookings, booking), (contacts, one), (), at_ms=portal.now_ms(), source=IMPORT)
    state.save(portal, path)
    again = Portal(Settings())
    state.load(again, path)
    store = again.store("contacts")
    assert store.ids == contacts.ids
    assert store.next_id == contacts.next_id
    assert [entry.value for entry in store.entries(store.records[0], "sj_credits")] == ["5", "9"]
    assert linked(again, again.store("bookings").records[0], "0-1") == [(one.id, (1301,))]
    assert store.by_unique("email", "student1@example.com") is None, "archived"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(state.StateError, match=r"portal\.state"):
        state.load(again, path)


def _start(*arguments):
    command = [sys.executable, "-m", "hubspot_simulator", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[-1]


def test_the_command_keeps_its_state_and_stops_at_once(tmp_path):
    """SIGTERM ends it with 0 in well under two seconds; the next start finds what was written."""
    file = str(tmp_path / "s" / "portal.state")
    header = {"authorization": "Bearer x"}
    process, url = _start("--contacts", "3", "--state", file)
    httpx.post(f"{url}{CONTACTS}", json={"properties": {"email": "kept@x.io"}}, headers=header)
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - start < 2
    process.stdout.close()
    process, url = _start("--contacts", "3", "--state", file)
    try:
        assert len(httpx.get(f"{url}{CONTACTS}", headers=header).json()["results"]) == 4
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def test_a_port_there_is_not_is_one_clear_line():
    """65536 and beyond are no ports; no traceback says so."""
    command = [sys.executable, "-m", "hubspot_simulator", "--port", "99999"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert done.stderr == "Cannot listen on 127.0.0.1:99999: port must be 0-65535.\n"


def test_a_taken_port_is_one_clear_line():
    """Exit status 1, the address in the message, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "hubspot_simulator", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in done.stderr


def test_webhooks_are_signed_batched_and_retried(portal, receiver):
    """A refused delivery comes again, counted; the signature is that of HubSpot's own helper."""
    from hubspot.utils.signature import Signature

    handler, url = receiver
    handler.refuse = 1
    portal.door("POST", "webhooks", url=url, secret="s3cret", retry_ms=20)
    rows = [{"id": one, "properties": {"sj_credits": "9", "cs_credits": "9"}} for one in portal.ids(limit=2)]
    portal.post(f"{CONTACTS}/batch/update", {"inputs": rows})
    deadline = time.monotonic() + 5
    while portal.door("GET", "stats").json()["webhooks"]["sent"] < 1:
        assert time.monotonic() < deadline
    (_, first), (headers, body) = handler.got
    events = json.loads(body)
    assert len(events) == 4
    assert {one["attemptNumber"] for one in json.loads(first)} == {0}
    assert {one["attemptNumber"] for one in events} == {1}
    assert {one["subscriptionType"] for one in events} == {"contact.propertyChange"}
    assert {one["propertyName"] for one in events} == {"sj_credits", "cs_credits"}
    assert {str(one["objectId"]) for one in events} == {one["id"] for one in rows}
    stamp = headers["x-hubspot-request-timestamp"]
    own = hmac.new(b"s3cret", b"POST" + url.encode() + body + stamp.encode(), hashlib.sha256).digest()
    assert headers["x-hubspot-signature-v3"] == base64.b64encode(own).decode()
    assert Signature.is_valid(
        signature=headers["x-hubspot-signature-v3"],
        client_secret="s3cret",
        request_body=body.decode(),
        http_uri=url,
        http_method="POST",
        signature_version="v3",
        timestamp=stamp,
    )
    assert portal.door("GET", "stats").json()["webhooks"] == {"sent": 1, "failed": 1}


def test_webhooks_can_be_lost_and_doubled(portal, receiver):
    """Shares of all: drop 1 sends nothing, duplicate 1 sends everything twice."""
    handler, url = receiver
    [one] = portal.ids(limit=1)
    portal.door("POST", "webhooks", url=url, secret="x", drop=1.0)
    portal.http.patch(f"{CONTACTS}/{one}", json={"properties": {"sj_credits": "1"}})
    portal.door("POST", "webhooks", url=url, secret="x", duplicate=1.0, shuffle=True)
    portal.door("POST", "edits", object_type="contacts", id=one, properties={"sj_credits": "2"}, user="77")
    deadline = time.monotonic() + 5
    while not handler.got:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    events = [event for _, body in handler.got for event in json.loads(body)]
    assert [event["propertyValue"] for event in events] == ["2", "2"]
    assert {event["changeSource"] for event in events} == {"CRM_UI"}
    assert len({event["eventId"] for event in events}) == 1


def test_webhooks_can_come_in_disorder_and_in_many_deliveries(portal, receiver):
    """Shuffled, all of them arrive, in another order than they happened; a batch holds as many as set."""
    handler, url = receiver
    portal.door("POST", "webhooks", url=url, secret="x", shuffle=True, batch=10)
    ids = portal.ids(limit=60)
    rows = [{"id": one, "properties": {"sj_credits": "11"}} for one in ids]
    portal.post(f"{CONTACTS}/batch/update", {"inputs": rows})
    deadline = time.monotonic() + 5
    while portal.door("GET", "stats").json()["webhooks"]["sent"] < 6:
        assert time.monotonic() < deadline
    deliveries = [json.loads(body) for _, body in handler.got]
    assert [len(one) for one in deliveries] == [10] * 6
    told = [[str(event["objectId"]) for event in one] for one in deliveries]
    assert sorted(one for delivery in told for one in delivery) == sorted(ids)
    in_order = [ids[start : start + 10] for start in range(0, 60, 10)]
    assert not [delivery for delivery in told if delivery in in_order], (
        "mixed before they are put into deliveries"
    )
