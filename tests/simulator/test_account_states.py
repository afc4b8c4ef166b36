"""States of the account a test can set: revoked tokens, missing scopes, locks, moves, the day, rules."""

import time

import httpx
import pytest

from hubspot_simulator.access import known_scopes

CONTACTS = "/crm/v3/objects/contacts"
EXAMS = "/crm/objects/2026-09/mock_exams"


def _set(portal, **fields):
    return portal.door("POST", "settings", **fields).json()


def test_a_revoked_token_is_a_401_until_it_is_given_back(portal):
    """In HubSpot's words; nothing is counted against the limits."""
    _set(portal, revoked=True)
    refused = portal.http.get(CONTACTS)
    assert (refused.status_code, refused.json()["category"]) == (401, "INVALID_AUTHENTICATION")
    _set(portal, revoked=False)
    assert portal.http.get(CONTACTS).status_code == 200
    assert portal.door("GET", "stats").json()["rejected_401"] == 1


@pytest.mark.parametrize(
    ("scope", "refused", "allowed"),
    [
        ("crm.objects.contacts.write", ("PATCH", f"{CONTACTS}/1"), ("POST", f"{CONTACTS}/search")),
        ("crm.objects.contacts.read", ("POST", f"{CONTACTS}/batch/read"), ("POST", f"{CONTACTS}/merge")),
        ("crm.objects.custom.read", ("GET", EXAMS), ("GET", CONTACTS)),
        ("crm.objects.custom.write", ("POST", EXAMS), ("POST", CONTACTS)),
        ("crm.schemas.contacts.write", ("POST", "/crm/v3/properties/contacts"), ("GET", CONTACTS)),
        ("crm.schemas.custom.read", ("GET", "/crm/v3/schemas"), ("GET", EXAMS)),
        (
            "crm.objects.custom.write",
            ("POST", "/crm/v4/associations/bookings/contacts/batch/create"),
            ("POST", "/crm/v4/associations/bookings/contacts/batch/read"),
        ),
    ],
)
def test_a_missing_scope_is_a_403_that_names_it(portal, scope, refused, allowed):
    """Calls that need other scopes go on."""
    assert scope in known_scopes()
    _set(portal, missing_scopes=[scope])
    answer = portal.http.request(*refused, json={"inputs": []})
    assert (answer.status_code, answer.json()["category"]) == (403, "MISSING_SCOPES")
    assert answer.json()["errors"][0]["context"] == {"requiredGranularScopes": [scope]}
    assert portal.http.request(*allowed, json={"inputs": []}).status_code != 403
    assert portal.post("/_simulator/settings", {"missing_scopes": ["crm.anything"]}).status_code == 400


def test_a_locked_account_refuses_writes_with_423(portal):
    """Reads and searches go on, and nothing is written."""
    [one] = portal.ids(limit=1)
    _set(portal, locked=True)
    refused = portal.http.patch(f"{CONTACTS}/{one}", json={"properties": {"sj_credits": "9"}})
    assert (refused.status_code, refused.json()["category"]) == (423, "RESOURCE_LOCKED")
    assert portal.post(f"{CONTACTS}/batch/read", {"inputs": [{"id": one}]}).status_code == 200
    _set(portal, locked=False)
    shown = portal.http.get(f"{CONTACTS}/{one}", params={"properties": "sj_credits"}).json()
    assert shown["properties"]["sj_credits"] == "5"


def test_a_moving_account_says_477_and_for_how_long(portal):
    """`Retry-After` counts down on the portal's clock; then everything is as before."""
    _set(portal, migrating_s=600)
    refused = portal.http.get(CONTACTS)
    assert (refused.status_code, refused.json()["category"]) == (477, "MIGRATION_IN_PROGRESS")
    assert 590 < int(refused.headers["retry-after"]) <= 600
    _set(portal, advance_s=300)
    assert 290 < int(portal.http.get(CONTACTS).headers["retry-after"]) <= 300
    _set(portal, advance_s=301)
    assert portal.http.get(CONTACTS).status_code == 200


def test_the_day_can_be_used_up_and_ends_at_the_portals_midnight(serve):
    """The last call of the day passes, the next is DAILY, and one second after midnight all is new."""
    portal = serve(limits="enterprise")
    _set(portal, used_today=999_999)
    assert portal.http.get(CONTACTS).status_code == 200
    refused = portal.http.get(CONTACTS)
    assert (refused.status_code, refused.json()["policyName"]) == (429, "DAILY")
    assert refused.headers["x-hubspot-ratelimit-daily-remaining"] == "0"
    settings = portal.door("GET", "settings").json()
    assert settings["used_today"] == 1_000_000
    _set(portal, advance_s=settings["midnight_in_s"] + 1)
    assert portal.http.get(CONTACTS).status_code == 200
    assert portal.door("GET", "settings").json()["used_today"] == 1


RULE = {"object_type": "contacts", "property": "firstname", "type": "REGEX", "arguments": ["[A-Za-z]+"]}


def test_a_rule_refuses_one_record_of_a_batch(portal):
    """Alone it fails the batch in HubSpot's words; with trace ids the others are written."""
    rule = {**RULE, "message": "Enter only letters", "error": "INVALID_ALPHA"}
    portal.door("POST", "rules", **rule)
    rows = [
        {"id": one, "properties": {"firstname": name}}
        for one, name in zip(portal.ids(limit=3), ("Ana", "4na", "Zoe"), strict=True)
    ]
    refused = portal.post(f"{CONTACTS}/batch/update", {"inputs": rows})
    assert (refused.status_code, refused.json()["category"]) == (400, "VALIDATION_ERROR")
    assert "Enter only letters" in refused.json()["message"]
    assert refused.json()["errors"][0]["code"] == "INVALID_ALPHA"
    traced = {"inputs": [{**one, "objectWriteTraceId": one["id"]} for one in rows]}
    body = portal.post(f"{CONTACTS}/batch/update", traced).json()
    assert [one["properties"]["firstname"] for one in body["results"]] == ["Ana", "Zoe"]
    assert body["errors"][0]["context"]["objectWriteTraceId"] == [rows[1]["id"]]
    edit = {"object_type": "contacts", "id": rows[1]["id"], "properties": {"firstname": "4na"}}
    assert portal.post("/_simulator/edits", edit).status_code == 200, "the back door writes what it likes"


@pytest.mark.parametrize(
    ("rule", "argument", "bad"),
    [
        ({"property": "sj_credits", "type": "MAX_NUMBER"}, "7", "8"),
        ({"property": "sj_credits", "type": "MIN_NUMBER"}, "2", "1"),
        ({"property": "firstname", "type": "MAX_LENGTH"}, "3", "Anna"),
        ({"property": "firstname", "type": "MIN_LENGTH"}, "3", "Al"),
    ],
)
def test_rules_of_number_and_length(portal, rule, argument, bad):
    """The limit itself is allowed, an empty value too; the API shows the rule; it can be taken away."""
    [one] = portal.ids(limit=1)
    url = f"{CONTACTS}/{one}"
    name, good = rule["property"], "Ana" if rule["property"] == "firstname" else argument
    portal.door("POST", "rules", object_type="contacts", arguments=[argument], **rule)
    [shown] = portal.http.get("/crm/property-validations/2026-03/0-1").json()["results"]
    assert shown["propertyName"] == name
    [only] = portal.http.get(f"/crm/property-validations/2026-03/0-1/{name}").json()["results"]
    assert (only["ruleType"], only["ruleArguments"]) == (rule["type"], [argument])
    assert portal.http.patch(url, json={"properties": {name: bad}}).status_code == 400
    assert portal.http.patch(url, json={"properties": {name: good}}).status_code == 200
    assert portal.http.patch(url, json={"properties": {name: ""}}).status_code == 200
    portal.door("DELETE", "rules")
    assert portal.http.patch(url, json={"properties": {name: bad}}).status_code == 200


@pytest.mark.parametrize(
    "change",
    [{"arguments": ["("]}, {"arguments": []}, {"property": "nope"}, {"type": "NICE"}, {"object_type": "x"}],
)
def test_a_rule_that_makes_no_sense_is_refused(portal, change):
    """So that no test passes because its rule never held."""
    assert portal.post("/_simulator/rules", {**RULE, **change}).status_code == 400
    assert portal.door("GET", "rules").json() == {"rules": []}


@pytest.mark.parametrize(
    ("status", "category"),
    [(423, "RESOURCE_LOCKED"), (477, "MIGRATION_IN_PROGRESS"), (403, "MISSING_SCOPES")],
)
def test_a_fault_answers_as_the_state_would(portal, status, category):
    """Once, and 477 with `Retry-After`."""
    portal.door("POST", "faults", path="contacts$", status=status)
    refused = portal.http.get(CONTACTS)
    assert (refused.status_code, refused.json()["category"]) == (status, category)
    assert ("retry-after" in refused.headers) == (status == 477)
    assert portal.http.get(CONTACTS).status_code == 200


def test_a_fault_may_have_headers_and_a_body_of_its_own(portal):
    """JSON as it is given, text as it is: a proxy's page is no JSON."""
    portal.door("POST", "faults", path="contacts$", status=429, body={"a": [1]}, headers={"Retry-After": "3"})
    answer = portal.http.get(CONTACTS)
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (429, {"a": [1]}, "3")
    page = {"Content-Type": "text/html"}
    portal.door("POST", "faults", path="contacts$", status=502, body="<html>", headers=page)
    assert portal.door("GET", "faults").json()["waiting"][0]["body"] == "<html>"
    answer = portal.http.get(CONTACTS)
    assert (answer.text, answer.headers.get_list("content-type")) == ("<html>", ["text/html"])


def test_a_fault_can_cut_an_answer_in_the_middle(portal):
    """The client has the status and part of the body, and the write has taken effect."""
    portal.door("POST", "faults", path="contacts$", cut_after=10)
    with pytest.raises(httpx.RemoteProtocolError):
        portal.post(CONTACTS, {"properties": {"email": "half@x.io"}})
    assert portal.http.get(f"{CONTACTS}/half@x.io", params={"idProperty": "email"}).status_code == 200


@pytest.mark.parametrize("apply_first", [True, False])
def test_a_fault_can_hang_longer_than_a_client_waits(portal, apply_first):
    """The client gives up; whether the write took effect is the fault's choice."""
    [one] = portal.ids(limit=1)
    portal.door("POST", "faults", path=one, status=504, delay_ms=5_000, apply_first=apply_first)
    with pytest.raises(httpx.ReadTimeout):
        portal.http.patch(f"{CONTACTS}/{one}", json={"properties": {"sj_credits": "8"}}, timeout=0.3)
    shown = portal.http.get(f"{CONTACTS}/{one}", params={"properties": "sj_credits"}).json()
    assert shown["properties"]["sj_credits"] == ("8" if apply_first else "5")


def test_a_late_write_lands_on_top_of_a_newer_one(portal):
    """The older request takes effect last, with the time at which it landed."""
    [one] = portal.ids(limit=1)
    url = f"{CONTACTS}/{one}"
    portal.door("POST", "faults", path=one, method="PATCH", cut=True, late_apply_ms=400)
    with pytest.raises(httpx.TransportError):
        portal.http.patch(url, json={"properties": {"sj_credits": "1"}})
    assert portal.http.patch(url, json={"properties": {"sj_credits": "2"}}).status_code == 200
    entries, deadline = [], time.monotonic() + 5
    while len(entries) < 3 and time.monotonic() < deadline:
        entries = portal.door("GET", f"records/contacts/{one}").json()["history"]["sj_credits"]
    assert [entry["value"] for entry in entries] == ["1", "2", "5"]
    assert entries[0]["timestamp"] > entries[1]["timestamp"]


def test_a_late_write_does_not_land_in_a_portal_that_started_over(portal):
    """The same ids belong to other records by then: what was under way is lost."""
    [one] = portal.ids(limit=1)
    portal.door("POST", "faults", path=one, status=504, late_apply_ms=150)
    hanging = {"path": one, "delay_ms": 300, "apply_first": False, "status": 504}
    assert portal.http.patch(f"{CONTACTS}/{one}", json={"properties": {"sj_credits": "1"}}).status_code == 504
    portal.door("POST", "reset")
    portal.door("POST", "populate", contacts=250)
    portal.door("POST", "faults", **hanging)
    assert portal.http.get(f"{CONTACTS}/{one}").status_code == 504, "which took longer than the write"
    assert portal.door("GET", f"records/contacts/{one}").json()["properties"]["sj_credits"] == "5"
