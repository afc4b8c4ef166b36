"""The client against a simulated portal: what is read, what failures become, how long a caller waits."""

import asyncio
import time

import pytest

from tallybook.domain.call_limits import CallLimit
from tallybook.domain.errors import CrmBusy, CrmUnavailable, SetupError
from tallybook.hubspot.budget import CallKind, LocalCallBudget
from tallybook.hubspot.client import HubSpotClient
from tallybook.hubspot.connection import API_VERSION, HubSpotConnection
from tallybook.hubspot.errors import error_of

MISS = {"kind": CallKind.MISS, "deadline_s": 1.5}
READ = "/batch/read"


async def read(client, *emails, **options):
    return await client.batch_read(
        "contacts", emails, properties=["email", "sj_credits"], id_property="email", **{**MISS, **options}
    )


async def timed(awaitable):
    started_at = time.monotonic()
    with pytest.raises((CrmBusy, CrmUnavailable)) as caught:
        await awaitable
    return time.monotonic() - started_at, caught.value


async def test_a_hundred_students_are_read_by_email_in_one_call(portal, client):
    """Those HubSpot does not know are left out; names twice are asked once."""
    await portal.post("populate", contacts=99)
    emails = [f"student{n}@example.com" for n in range(99)]
    found = await read(client, *emails, "nobody@example.com", emails[0])
    assert {record.properties["email"] for record in found} == set(emails)
    assert found[0].updated_at.tzinfo is not None
    assert (await portal.stats())["calls"]["batch_read"] == 1


async def test_more_than_a_batch_is_the_callers_mistake(client):
    """100 ids, 50 with history."""
    with pytest.raises(ValueError, match="too many ids"):
        await read(client, *map(str, range(101)))
    with pytest.raises(ValueError, match="too many ids"):
        await read(client, *map(str, range(51)), with_history=["sj_credits"])


async def test_nothing_to_read_is_no_call(portal, client):
    """An empty batch costs nothing."""
    assert await read(client) == ()
    assert (await portal.stats())["total"] == 0


async def test_a_history_names_value_time_and_source(portal, client):
    """What the merge of balances needs to know."""
    await portal.post("populate", contacts=1)
    (before,) = await read(client, "student0@example.com")
    await portal.post(
        "edits", object_type="contacts", id=before.id, properties={"sj_credits": "9"}, user="77"
    )
    (after,) = await client.batch_read(
        "contacts", [before.id], properties=["sj_credits"], with_history=["sj_credits"], **MISS
    )
    newest = after.properties_with_history["sj_credits"][0]
    assert (newest.value, newest.source_type, after.properties["sj_credits"]) == ("9", "CRM_UI", "9")
    assert after.updated_at > before.updated_at


async def test_the_newest_id_is_found_by_search(portal, client):
    """One result, the largest id, and how many there are."""
    await portal.post("populate", contacts=25)
    page = await client.search(
        "contacts", sort_by="hs_object_id", descending=True, limit=1, kind=CallKind.IMPORT, deadline_s=2
    )
    everybody = await client.list_page("contacts", properties=[], kind=CallKind.IMPORT, deadline_s=2)
    assert (page.results[0].id, page.total) == (everybody.results[-1].id, 25)


async def test_the_portal_and_its_properties_are_told(client):
    """So that doctor can compare them with what Tallybook needs."""
    account = await client.account_details(kind=CallKind.PULL, deadline_s=2)
    assert account.portal_id > 0
    properties = await client.list_properties("contacts", kind=CallKind.PULL, deadline_s=2)
    assert {"email", "student_id", "sj_credits"} <= {item.name for item in properties}


async def test_a_passing_failure_is_tried_again(portal, client):
    """One 502 costs a moment, not the answer."""
    await portal.post("populate", contacts=1)
    await portal.post("faults", path=READ, status=502, times=1)
    assert len(await read(client, "student0@example.com")) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 423, 477, 521, 524])
async def test_a_lasting_failure_is_told_before_the_deadline(portal, client, status):
    """CRM_UNAVAILABLE with HubSpot's words, while the caller still listens."""
    await portal.post("faults", path=READ, status=status, times=50)
    took_s, error = await timed(read(client, "a@b.c", deadline_s=0.6))
    assert isinstance(error, CrmUnavailable)
    assert error.details["status"] == status
    assert took_s < 1


async def test_a_slow_answer_is_given_up_at_the_deadline(portal, client):
    """A miss must be answered within two seconds, whatever HubSpot does."""
    await portal.post("faults", path=READ, times=5, delay_ms=2000)
    took_s, error = await timed(read(client, "a@b.c", deadline_s=0.5))
    assert isinstance(error, CrmUnavailable)
    assert took_s < 1
    await portal.door.delete("/_simulator/faults")


async def test_a_cut_connection_is_tried_again(portal, client):
    """The network's failures pass like HubSpot's own."""
    await portal.post("populate", contacts=1)
    await portal.post("faults", path=READ, times=1, cut=True)
    assert len(await read(client, "student0@example.com")) == 1


async def test_nobody_listening_is_unavailable():
    """A wrong port or a dead network is a retry time, not a crash."""
    async with HubSpotClient(
        HubSpotConnection("http://127.0.0.1:9", "t"), budget=LocalCallBudget([])
    ) as client:
        took_s, error = await timed(read(client, "a@b.c", deadline_s=0.5))
    assert isinstance(error, CrmUnavailable)
    assert took_s < 1


async def test_hubspots_limit_is_waited_for_when_there_is_time(portal):
    """429 SECONDLY passes after a second; each attempt is counted by its kind."""
    made = []
    await portal.post("populate", contacts=1)
    await portal.post("settings", limits="strict", limit_calls=1, limit_window_s=1)
    async with portal.client(observer=made.append) as client:
        await read(client, "student0@example.com")
        assert len(await read(client, "student0@example.com", deadline_s=5)) == 1
    assert [call.status for call in made] == [200, 429, 200]
    assert {call.kind for call in made} == {CallKind.MISS}
    assert made[0].daily_remaining > 0


async def test_hubspots_limit_is_busy_when_there_is_no_time(portal, client):
    """CRM_BUSY at once, with the time to wait, instead of a second of silence."""
    await portal.post("settings", limits="professional", limit_calls=1)
    await read(client, "student0@example.com")
    took_s, error = await timed(read(client, "student0@example.com"))
    assert isinstance(error, CrmBusy)
    assert (error.retry_after_s, error.details["policy"]) == (10, "TEN_SECONDLY_ROLLING")
    assert took_s < 0.5


async def test_a_refused_token_names_the_setting_and_hides_the_token(portal):
    """One line for the person who runs Tallybook; the secret appears nowhere."""
    await portal.post("settings", token="the-right-one")
    async with portal.client(token="pat-secret") as client:
        with pytest.raises(SetupError, match="HS_PRIVATE_APP_TOKEN was refused") as caught:
            await read(client, "a@b.c")
        shown = f"{caught.value!r} {caught.value.details} {caught.value.hint} {client.connection!r}"
    assert "pat-secret" not in shown


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (503, b'{"message": "there is no pat-secret"}', CrmUnavailable, "there is no ***"),
        (502, b"<html>Bad gateway \xff</html>", CrmUnavailable, "<html>Bad gateway \ufffd</html>"),
        (429, b'{"policyName": "DAILY"}', CrmBusy, ""),
        (403, b'{"errors": [{"context": {"requiredGranularScopes": ["crm.read"]}}]}', SetupError, ""),
        (
            400,
            b'{"message": "bad", "errors": "not a list"}',
            CrmUnavailable,
            '{"message": "bad", "errors": "not a list"}',
        ),
    ],
)
def test_any_error_body_becomes_an_error_without_the_token(status, body, kind, said):
    """Every field of HubSpot's error is optional, and a gateway answers in no JSON at all."""
    error = error_of(status, body=body, headers={}, operation="read contacts", token="pat-secret")
    assert isinstance(error, kind)
    assert error.details["hubspot_message"] == said
    assert "lacks crm.read" in error.message or status != 403


async def test_a_missing_scope_and_an_unknown_type_are_for_the_operator(portal, client):
    """Neither passes by waiting."""
    await portal.post("faults", path=READ, status=403, times=1)
    with pytest.raises(SetupError, match="may not read contacts"):
        await read(client, "a@b.c")
    with pytest.raises((SetupError, CrmUnavailable)) as caught:
        await client.list_page("2-1", properties=[], **MISS)
    assert caught.value.details["status"] in (400, 404)


async def test_one_constant_holds_the_version_of_the_api(portal, client):
    """Changing it changes every path."""
    assert API_VERSION == "2026-09"
    await client.list_page("contacts", properties=[], **MISS)


async def test_a_local_budget_never_passes_its_window(portal):
    """40 look-ups at once through 10 slots per 0.3 s: all answered, no 429."""
    made = []
    await portal.post("settings", limits="strict", limit_calls=10, limit_window_s=0.3, latency_ms=30)
    budget = LocalCallBudget([CallLimit(10, 0.3)], processes=1)
    async with portal.client(budget=budget, observer=made.append) as client:
        await asyncio.gather(*(read(client, f"a{n}@b.c", deadline_s=20) for n in range(40)))
    assert [call.status for call in made] == [207] * 40
    assert (await portal.stats())["rejected_429"] == 0


async def test_the_negative_control_a_wider_budget_is_refused_by_the_portal(portal):
    """Without the right limit the same 40 look-ups do run into 429."""
    made = []
    await portal.post("settings", limits="strict", limit_calls=10, limit_window_s=0.3, latency_ms=30)
    budget = LocalCallBudget([CallLimit(30, 0.3)], processes=1)
    async with portal.client(budget=budget, observer=made.append) as client:
        await asyncio.gather(*(read(client, f"a{n}@b.c", deadline_s=20) for n in range(40)))
    assert 429 in [call.status for call in made]


async def test_each_process_takes_its_part_and_at_least_one_call():
    """19 calls for 8 processes are 2 each; the third has to wait and is told so."""
    budget = LocalCallBudget([CallLimit(19, 10.0)], processes=8)
    for _ in range(2):
        async with budget.slot(CallKind.MISS, wait_s=0.1):
            pass
    took_s, error = await timed(budget.slot(CallKind.MISS, wait_s=0.1).__aenter__())
    assert isinstance(error, CrmBusy)
    assert took_s < 1
    async with LocalCallBudget([CallLimit(4, 10.0)], processes=8).slot(CallKind.MISS, wait_s=0.1):
        pass


@pytest.mark.parametrize(
    ("kind", "search"), [(CallKind.IMPORT, False), (CallKind.PUSH, False), (CallKind.MISS, True)]
)
async def test_only_look_ups_may_call_while_the_database_is_away(kind, search):
    """Imports, pushes and searches wait for the shared budget."""
    with pytest.raises(CrmBusy):
        await LocalCallBudget([CallLimit(100, 1.0)]).slot(kind, search=search, wait_s=1).__aenter__()
