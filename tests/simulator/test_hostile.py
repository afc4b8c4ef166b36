"""Calls that mean harm or nonsense: each is answered, refused in HubSpot's words, and nothing breaks."""

import copy
import json
import random
from urllib.parse import quote

import httpx
import pytest

from hubspot_simulator.app import create_app
from hubspot_simulator.settings import Settings

CONTACTS = "/crm/v3/objects/contacts"
NONSENSE = (
    *("", "0", "-1", "²", "٣", "1e400", "9" * 30, "9" * 5000, "NaN", "inf", "null", "true", "*", "**"),
    *("\x00", "\u2028", "🙂", " 5 ", ";a", ";;", "a;b", "x" * 70_000, "a@b", "A@B.CO;c@d.ee", "../..", "%"),
    *("2027-02-30", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "-" + "9" * 17),
    *(None, True, False, 0, -1, 1.5, 1e308, 2**63, 2**70, [], {}, [[]], {"id": {}}, ["a"] * 3),
)
PAIR = {"from": {"id": "1"}, "to": {"id": "1"}}
RAW = (
    b"",
    b"{",
    b"null",
    b"\xff\xfe",
    b'"x"',
    b"[" * 100_000,
    b'{"a":' * 5_000,
    b'{"inputs":[{"id":"\\ud800"}]}',
    b"9" * 5_000,
)


@pytest.fixture
async def account():
    """A portal in this process; an exception of its own would come out here."""
    app = create_app(
        Settings(limit_calls=10**9, limit_search_per_s=10**9, contacts=40, mock_exams=4, bookings=10)
    )
    app.start()
    transport = httpx.ASGITransport(app)
    headers = {"authorization": "Bearer x"}
    async with httpx.AsyncClient(transport=transport, base_url="http://portal", headers=headers) as http:
        http.portal = app.portal
        yield http


def _refused(answer):
    """Whether a call was refused; a refusal has HubSpot's shape."""
    assert answer.status_code < 500, answer.text
    if answer.status_code < 400:
        return False
    body = answer.json()
    assert body["status"] == "error"
    assert body["message"]
    assert body["correlationId"]
    return True


def _calls(portal):
    """One good call of each kind: method, path, body."""
    one, two, *_ = (str(record.id) for record in portal.store("contacts").records)
    exam = str(portal.store("mock_exams").ids[0])
    booking = str(portal.store("bookings").ids[-1])
    kind = {"associationCategory": "USER_DEFINED", "associationTypeId": 1301}
    made = {"properties": {}, "associations": [{"to": {"id": one}, "types": [kind]}]}
    edit = {"object_type": "contacts", "id": one, "expect": {}}
    pair = {"from": {"id": booking}, "to": {"id": one}, "types": [kind]}
    where = {"propertyName": "sj_credits", "operator": "GTE", "value": "1"}
    find = {
        "filterGroups": [{"filters": [where, {**where, "operator": "IN", "values": ["1"]}]}],
        "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
        "limit": 10,
        "after": "0",
        "query": "a",
        "properties": ["email"],
    }
    texts = {"firstname": "A", "sj_credits": "1", "ndecc_exam_date": "2027-01-01"}
    email = {"id": "a@x.io", "idProperty": "email", "properties": {**texts, "email": "a@x.io"}}
    prop = {"name": "note", "label": "Note", "type": "string", "fieldType": "text", "hasUniqueValue": True}
    objects, links = "/crm/objects/2026-09", "/crm/v4/associations/bookings/contacts"
    query = "limit=5&after=0&properties=email&propertiesWithHistory=email&associations=bookings"
    return [
        ("GET", f"{CONTACTS}?{query}&archived=false", None),
        ("GET", f"{CONTACTS}/{one}?{query}&idProperty=hs_object_id", None),
        ("POST", CONTACTS, {"properties": texts, "associations": []}),
        ("PATCH", f"{CONTACTS}/{one}", {"properties": texts}),
        ("PATCH", f"{objects}/mock_exams/{exam}", {"properties": {"scheduled_activation_datetime": "1"}}),
        ("DELETE", f"{CONTACTS}/{two}", None),
        ("POST", f"{objects}/contacts/batch/read", {"inputs": [{"id": one}], "properties": ["email"]}),
        ("POST", f"{objects}/bookings/batch/create", {"inputs": [made]}),
        ("POST", f"{objects}/contacts/batch/update", {"inputs": [{"id": one, "properties": texts}]}),
        ("POST", f"{objects}/contacts/batch/upsert", {"inputs": [{**email, "objectWriteTraceId": "t"}]}),
        ("POST", f"{objects}/contacts/batch/archive", {"inputs": [{"id": two}]}),
        ("POST", f"{CONTACTS}/search", find),
        ("POST", f"{CONTACTS}/merge", {"primaryObjectId": one, "objectIdToMerge": two}),
        ("POST", f"{CONTACTS}/gdpr-delete", {"objectId": "a@x.io", "idProperty": "email"}),
        ("POST", f"{links}/batch/read", {"inputs": [{"id": booking, "after": "0"}]}),
        ("POST", f"{links}/batch/create", {"inputs": [pair]}),
        ("POST", f"{links}/batch/archive", {"inputs": [{**pair, "to": [{"id": one}]}]}),
        ("POST", f"{links}/batch/labels/archive", {"inputs": [pair]}),
        ("POST", f"{links}/labels", {"label": "a", "name": "b", "inverseLabel": "c"}),
        ("PUT", f"{links}/labels", {"label": "a", "associationTypeId": 1301}),
        ("PUT", f"/crm/v4/objects/bookings/{booking}/associations/contacts/{one}", [kind]),
        ("GET", f"/crm/v4/objects/bookings/{booking}/associations/contacts?limit=5&after=0", None),
        ("POST", "/crm/v3/associations/bookings/contacts/batch/create", {"inputs": [{**pair, "type": "x"}]}),
        ("POST", "/crm/v3/properties/contacts", {**prop, "options": [{"label": "a", "value": "b"}]}),
        ("PATCH", "/crm/v3/properties/contacts/note", {"label": "b", "options": []}),
        ("POST", "/crm/v3/properties/contacts/groups", {"name": "a", "label": "b"}),
        ("POST", "/crm/v3/schemas", {"name": "rooms", "labels": {"singular": "R"}, "properties": [prop]}),
        ("PATCH", "/crm/v3/schemas/bookings", {"labels": {"plural": "B"}, "searchableProperties": ["name"]}),
        ("POST", "/_simulator/edits", {**edit, "properties": texts}),
        ("POST", "/_simulator/rules", {"object_type": "0-1", "property": "email", "type": "REGEX"}),
    ]


def _spots(value, path=()):
    """The places in a JSON value, the whole of it first."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from _spots(inner, (*path, key))


def _with(value, path, other):
    if not path:
        return other
    made = copy.copy(value)
    made[path[0]] = _with(value[path[0]], path[1:], other)
    return made


async def test_every_place_of_every_body_bears_nonsense(account):
    """Each value of each body is replaced by each piece of nonsense; no answer is a 5xx or without shape."""
    refused = asked = 0
    for method, path, body in _calls(account.portal):
        for spot in _spots(body) if body is not None else ():
            for nonsense in NONSENSE:
                content = json.dumps(_with(body, spot, nonsense))
                refused += _refused(await account.request(method, path, content=content))
                asked += 1
    assert asked > 5_000
    assert asked > refused > asked / 2


async def test_every_part_of_every_address_bears_nonsense(account):
    """Each part of each path and each parameter too."""
    rng = random.Random(1)
    for method, address, body in _calls(account.portal):
        path, _, query = address.partition("?")
        parts, pairs = path.split("/"), query.split("&") if query else []
        for nonsense in map(str, NONSENSE):
            text = quote(nonsense[:300], safe="")
            for at in range(2, len(parts)):
                bent = "/".join([*parts[:at], text, *parts[at + 1 :]])
                _refused(await account.request(method, bent, json=body))
            for at, pair in enumerate(pairs):
                bent = "&".join([*pairs[:at], f"{pair.split('=')[0]}={text}", *pairs[at + 1 :]])
                _refused(await account.request(method, f"{path}?{bent}", json=body))
        other = rng.choice(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
        _refused(await account.request(other, path, json=body))


@pytest.mark.parametrize("content", RAW)
async def test_bodies_that_are_no_json_object_are_refused(account, content):
    """Cut short, nested without end, not UTF-8, a number of five thousand digits: 400 in HubSpot's words."""
    for method, path, body in _calls(account.portal):
        if body is not None and not path.startswith("/_simulator/edits"):
            assert _refused(await account.request(method, path, content=content)), path


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{CONTACTS}/batch/read", {"inputs": [{"id": str(i)} for i in range(101)]}),
        (f"{CONTACTS}/batch/update", {"inputs": [{"id": str(i), "properties": {}} for i in range(101)]}),
        (f"{CONTACTS}/batch/create", {"inputs": [{"properties": {}}] * 101}),
        (f"{CONTACTS}/batch/archive", {"inputs": [{"id": str(i)} for i in range(101)]}),
        (f"{CONTACTS}/batch/update", {"inputs": [{"id": "1", "properties": {}}] * 2}),
        ("/crm/v4/associations/bookings/contacts/batch/read", {"inputs": [{"id": "1"}] * 1001}),
        ("/crm/v4/associations/bookings/contacts/batch/archive", {"inputs": [{**PAIR, "to": []}] * 2001}),
        ("/crm/v4/associations/bookings/contacts/batch/associate/default", {"inputs": [PAIR] * 2001}),
    ],
)
async def test_batches_too_large_or_with_an_id_twice_are_refused(account, path, body):
    """100 records, 1,000 associations read, 2,000 written, an id once."""
    answer = await account.post(path, json=body)
    assert (answer.status_code, answer.json()["category"]) == (400, "VALIDATION_ERROR")


async def test_a_body_without_end_is_cut_off(account):
    """More than ten megabytes are answered with 413 before they are all there."""
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 1_000_000

    answer = await account.post(CONTACTS, content=endless())
    assert (answer.status_code, answer.json()["status"]) == (413, "error")
    assert sent < 20


async def test_a_slip_of_the_simulators_own_is_a_500_in_shape(account, monkeypatch, capsys):
    """A bug is told on stderr, not to the client, and the next call is answered."""
    from hubspot_simulator import routes

    def broken(portal, call):
        raise KeyError("a bug")

    monkeypatch.setitem(routes._SINGLES, ("GET", 0), ("list", broken))
    answer = await account.get(CONTACTS)
    assert (answer.status_code, answer.json()["category"]) == (500, "INTERNAL_ERROR")
    assert "KeyError" in capsys.readouterr().err
    assert (await account.get(f"{CONTACTS}/1")).status_code == 404
