"""Webhooks of HubSpot's: who may send them, and what becomes of them."""

import asyncio
import json
import time
from datetime import UTC, datetime

import pytest
from hubspot.utils.signature import Signature
from hypothesis import given
from hypothesis import strategies as st

from e2e.service import data_of, refused
from tallybook.hubspot.signature import is_signed, sign

PATH = "/api/webhooks/hubspot"
# The address HubSpot was given, which is not the one the server listens on.
PUBLIC_URL = "https://tallybook.example/booking"
SECRET = "the client secret of the app"
SETTINGS = {"HUBSPOT_CLIENT_SECRET": SECRET, "TALLYBOOK_PUBLIC_URL": PUBLIC_URL}
MOCK_EXAMS, BOOKINGS = "2-50158913", "2-50158943"


@pytest.fixture(scope="module")
async def service(start_service):
    return await start_service(contacts=3, **SETTINGS)


@pytest.fixture
async def empty(service):
    """The service with nothing in its inbox."""
    await service.run("delete from tallybook.inbox")
    return service


def event(n=1, **changes):
    return {
        "eventId": n,
        "subscriptionId": 1,
        "portalId": 8_123_456,
        "appId": 1_000_000,
        "occurredAt": 1_795_000_000_000 + n,
        "subscriptionType": "contact.propertyChange",
        "attemptNumber": 0,
        "objectId": 5_000_000 + n,
        "changeSource": "CRM_UI",
        "sourceId": "userId:1",
        "propertyName": "sj_credits",
        "propertyValue": "7",
    } | changes


def signed(body, *, secret=SECRET, url=PUBLIC_URL + PATH, at_s=0.0):
    """Headers as HubSpot's own helper makes them, `at_s` seconds from now."""
    timestamp = str(int((time.time() + at_s) * 1000))
    signature = Signature.get_signature(secret, body, "v3", url, "POST", timestamp)
    return {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": timestamp}


async def post(service, events, **how):
    body = events if isinstance(events, str) else json.dumps(events)
    headers = {"content-type": "application/json"} | signed(body, **how)
    return await service.http.post(PATH, content=body, headers=headers)


async def inbox(service):
    rows = await service.run(
        "select object_type, hubspot_id, subscription_type, property_name, details from tallybook.inbox"
        " order by hubspot_id, subscription_type"
    )
    return [tuple(row) for row in rows]


async def test_a_signed_event_becomes_a_hint(empty):
    """The record and what happened are kept, the value is not."""
    answer = await post(empty, [event(1)])
    assert data_of(answer) == {"stored": 1, "repeated": 0, "own": 0, "ignored": 0}
    assert await inbox(empty) == [("contact", "5000001", "contact.propertyChange", "sj_credits", {})]


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": "another secret"},
        {"url": "http://127.0.0.1" + PATH},
        {"url": PUBLIC_URL + PATH + "/"},
        {"at_s": -301},
        {"at_s": -360},
        {"at_s": 302},
        {"at_s": 86_400},
    ],
    ids=str,
)
async def test_another_secret_address_or_time_opens_nothing(empty, wrong):
    """Signed for another address, six minutes old, from the future: 401, and nothing is stored."""
    refused(await post(empty, [event()], **wrong), 401, "UNAUTHENTICATED")
    assert await inbox(empty) == []


@pytest.mark.parametrize("at_s", [-295, 295])
async def test_clocks_may_differ_by_less_than_five_minutes(empty, at_s):
    """In both directions."""
    assert data_of(await post(empty, [event()], at_s=at_s))["stored"] == 1


async def test_an_unsigned_or_changed_request_opens_nothing(empty):
    """No headers, half of them, a time that is none, another body, an older version's signature."""
    body = json.dumps([event()])
    good = signed(body)
    v2 = Signature.get_signature(SECRET, body, "v2", PUBLIC_URL + PATH, "POST")
    for headers, sent in (
        ({}, body),
        ({"x-hubspot-signature-v3": good["x-hubspot-signature-v3"]}, body),
        (good | {"x-hubspot-request-timestamp": "soon"}, body),
        (good | {"x-hubspot-request-timestamp": "9" * 30}, body),
        (good | {"x-hubspot-signature-v3": ""}, body),
        (good, body.replace("7", "70")),
        ({"x-hubspot-signature": v2, "x-hubspot-signature-version": "v2"}, body),
    ):
        refused(await empty.http.post(PATH, content=sent, headers=headers), 401, "UNAUTHENTICATED")
    assert await inbox(empty) == []


async def test_the_host_header_is_never_part_of_what_is_checked(empty):
    """A request that is signed for the host it names, not for ours, is refused."""
    body = json.dumps([event()])
    headers = {"host": "evil.example", **signed(body, url="https://evil.example" + PATH)}
    refused(await empty.http.post(PATH, content=body, headers=headers), 401, "UNAUTHENTICATED")


async def test_repeated_and_reversed_events_are_stored_once(empty):
    """Ten deliveries at once of the same hundred events, half of them backwards: a hundred hints."""
    events = [event(n) for n in range(100)]
    answers = await asyncio.gather(
        *(post(empty, events if n % 2 else list(reversed(events))) for n in range(10))
    )
    counts = [data_of(answer) for answer in answers]
    assert sum(each["stored"] for each in counts) == 100
    assert sum(each["repeated"] for each in counts) == 900
    assert len(await inbox(empty)) == 100


async def test_all_kinds_of_events_find_their_record(empty):
    """Contacts by name and by type id, custom objects by type id, merges with their ids."""
    events = [
        event(1, subscriptionType="contact.creation"),
        event(2, subscriptionType="contact.deletion"),
        event(3, subscriptionType="contact.privacyDeletion"),
        event(4, subscriptionType="contact.restore"),
        event(
            5,
            subscriptionType="contact.merge",
            objectId=11,
            primaryObjectId=11,
            mergedObjectIds=[12, 13],
            newObjectId=14,
        ),
        event(6, subscriptionType="object.propertyChange", objectTypeId="0-1"),
        event(7, subscriptionType="object.creation", objectTypeId=MOCK_EXAMS),
        event(8, subscriptionType="object.propertyChange", objectTypeId=BOOKINGS),
        event(
            9,
            subscriptionType="object.associationChange",
            objectTypeId=BOOKINGS,
            objectId=None,
            fromObjectId=21,
            toObjectId=22,
            toObjectTypeId="0-1",
        ),
    ]
    assert data_of(await post(empty, events))["stored"] == 9
    found = {(kind, record, what): details for kind, record, what, _, details in await inbox(empty)}
    assert found == {
        ("contact", "5000001", "contact.creation"): {},
        ("contact", "5000002", "contact.deletion"): {},
        ("contact", "5000003", "contact.privacyDeletion"): {},
        ("contact", "5000004", "contact.restore"): {},
        ("contact", "11", "contact.merge"): {"new": ["14"], "primary": ["11"], "merged": ["12", "13"]},
        ("contact", "5000006", "object.propertyChange"): {},
        ("mock_exam", "5000007", "object.creation"): {},
        ("booking", "5000008", "object.propertyChange"): {},
        ("booking", "21", "object.associationChange"): {},
    }


async def test_what_we_cannot_use_is_counted_and_the_rest_is_kept(empty):
    """Other objects, no id, forms nobody knows: ignored, without losing the one beside them."""
    events = [
        event(1, subscriptionType="company.creation"),
        event(2, subscriptionType="object.creation", objectTypeId="2-1"),
        event(3, objectId=None),
        event(4, objectId="x"),
        event(5, objectId=-5),
        event(6, occurredAt=10**18),
        event(7, propertyName="a\u0000b"),
        event(8, subscriptionType="contact.propertyChange" * 20),
        "text",
        None,
        {},
        event(9),
    ]
    assert data_of(await post(empty, events)) == {"stored": 1, "repeated": 0, "own": 0, "ignored": 11}


@pytest.mark.parametrize("body", ["", "{", "null", "{}", "[", '"text"', "\ud800", "[" * 5000], ids=repr)
async def test_garbage_is_refused_and_nothing_is_stored(empty, body):
    """Signed garbage is 400, never 500."""
    sent = body.encode("utf-8", "surrogatepass")
    timestamp = str(int(time.time() * 1000)).encode()
    headers = {
        b"x-hubspot-signature-v3": sign(
            SECRET, method="POST", url=PUBLIC_URL + PATH, body=sent, timestamp=timestamp
        ),
        b"x-hubspot-request-timestamp": timestamp,
    }
    refused(await empty.http.post(PATH, content=sent, headers=headers), 400, "VALIDATION_ERROR")
    assert await inbox(empty) == []


async def test_a_hundred_events_fit_and_a_megabyte_does_not(empty):
    """A hundred with texts of two kilobytes are taken; 1 MB is 413 before it is looked at."""
    assert (
        data_of(await post(empty, [event(n, propertyValue="x" * 2000) for n in range(100)]))["stored"] == 100
    )
    huge = json.dumps([event(n, propertyValue="x" * 10_000) for n in range(101, 206)])
    assert len(huge) > 1_000_000
    refused(await post(empty, huge), 413, "PAYLOAD_TOO_LARGE")
    assert len(await inbox(empty)) == 100


async def test_echoes_of_our_own_writes_are_dropped(empty):
    """Known by the id of our integration, and only where the event can be an echo at all."""
    await empty.run(
        "insert into tallybook.sync_state (name, value) values ('own_source', '{\"source_id\": \"777\"}')"
    )
    ours = {"changeSource": "INTEGRATION", "sourceId": "777"}
    events = [
        event(1, **ours),
        event(2, subscriptionType="contact.creation", **ours),
        event(3, subscriptionType="contact.deletion", **ours),
        event(4, changeSource="INTEGRATION", sourceId="778"),
        event(5, changeSource="CRM_UI", sourceId="777"),
    ]
    assert data_of(await post(empty, events)) == {"stored": 3, "repeated": 0, "own": 2, "ignored": 0}
    assert [row[1] for row in await inbox(empty)] == ["5000003", "5000004", "5000005"]


async def test_what_became_of_events_is_counted(empty):
    """Prometheus sees each outcome."""
    await post(empty, [event(9001), event(9002, subscriptionType="deal.creation")])
    figures = (await empty.http.get("/metrics")).text
    assert 'tallybook_webhook_events_total{outcome="stored"}' in figures
    assert 'tallybook_webhook_events_total{outcome="ignored"}' in figures


@pytest.mark.parametrize("missing", SETTINGS)
async def test_without_secret_or_public_address_there_is_no_such_address(start_service, missing):
    """404, also for a body that would be too large and for a signature made with nothing."""
    closed = await start_service(contacts=1, **SETTINGS | {missing: None})
    for body in ("[]", "x" * 1_000_000):
        for secret in ("", "None", SECRET):
            for url in (PUBLIC_URL, "", "None"):
                headers = signed(body, secret=secret, url=url + PATH)
                refused(await closed.http.post(PATH, content=body, headers=headers), 404, "NOT_FOUND")


@given(body=st.text(), path=st.text("abc%2F:/?=&-", max_size=20), timestamp=st.integers(1, 10**13))
def test_signatures_are_those_of_hubspots_own_helper(body, path, timestamp):
    """For addresses without escapes, byte for byte."""
    url = "https://a.example/" + path.replace("%", "")
    ours = sign(
        SECRET, method="POST", url=url, body=body.encode(), timestamp=str(timestamp).encode()
    ).decode()
    assert ours == Signature.get_signature(SECRET, body, "v3", url, "POST", str(timestamp))


def test_escapes_that_hubspot_decodes_are_decoded_before_signing():
    """The listed ones in either case, and no others."""
    escaped = "%3A%2F%3F%40%21%24%27%28%29%2A%2C%3B%3a%2f"
    mixed = f"https://a.example/x{escaped}%20%25?y"
    plain = "https://a.example/x:/?@!$'()*,;:/%20%25?y"
    given_ = {"method": "POST", "body": b"[]", "timestamp": b"1"}
    expected = Signature.get_signature(SECRET, "[]", "v3", plain, "POST", "1").encode()
    assert sign(SECRET, url=mixed, **given_) == expected


def test_an_empty_secret_signs_nothing():
    """Not even what was signed with it."""
    now = datetime.now(UTC)
    timestamp = str(int(now.timestamp() * 1000)).encode()
    given_ = {"method": "POST", "url": PUBLIC_URL, "body": b"[]", "timestamp": timestamp}
    for secret, wanted in (("", False), (SECRET, True)):
        signature = sign(secret, **given_)
        assert is_signed(secret, **given_, signature=signature, now=now) is wanted
