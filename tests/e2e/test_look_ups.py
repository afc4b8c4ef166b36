"""Finding a student: stored or asked from HubSpot, how often HubSpot is asked, and what the log says."""

import asyncio
import re
import time

import psycopg
import pytest

from e2e.service import data_of, refused
from support.factories import make_contact

_names = ("Lovelace", "Ada ", "Grace", "Hopper")


async def check(service, pair, *, request_id, **more):
    headers = service.as_app | {"x-request-id": request_id}
    return await service.check(pair, headers=headers, **more)


async def batch_reads(service):
    return (await service.simulator.calls())["calls"]["batch_read"]


@pytest.mark.parametrize("mock_type", ["Situational Judgment", "Clinical Skills"])
async def test_a_stored_student_is_a_hit_and_asks_hubspot_nothing(service, mock_type):
    """The log says cache_hit under the request's id; the answer comes from the database."""
    contact = await make_contact(service.db, credits={"sj_credits": 2, "cs_credits": 2})
    before = await service.simulator.calls()
    pair = {"student_id": contact.student_id, "email": contact.email}
    request_id = f"hit-{mock_type[:3]}"
    data = data_of(await check(service, pair, request_id=request_id, mock_type=mock_type))
    assert (data["source"], data["available_credits"]) == ("database", 2)
    (line,) = service.server.log(request_id=request_id)
    assert (line["event"], line["route"]) == ("cache_hit", "/api/mock-exams/validate-credits")
    assert await service.simulator.calls() == before


async def test_a_student_who_is_not_stored_is_a_miss_once(service):
    """Asked, stored and answered with its UUID; then a hit with the same numbers."""
    pair = service.unmet()
    first = data_of(await check(service, pair, request_id="miss-1"))
    second = data_of(await check(service, pair, request_id="miss-2"))
    assert (first["source"], second["source"]) == ("hubspot", "database")
    assert first["id"] == second["id"]
    for name in ("id", "contact_id", "available_credits", "credit_breakdown", "student_name", "eligible"):
        assert first[name] == second[name]
    assert [line["event"] for line in service.server.log(request_id="miss-1")] == ["cache_miss"]
    assert [line["event"] for line in service.server.log(request_id="miss-2")] == ["cache_hit"]


async def test_the_first_student_of_the_portal_has_what_the_portal_says(service):
    """Every balance crosses over as it is: 5, 3, 2, 2 and 1."""
    answer = await service.http.get(
        "/api/auth/credits",
        params={"student_id": "1599000", "email": "student0@example.com"},
        headers=service.as_app,
    )
    assert data_of(answer)["balances"] == {
        "sj_credits": 5,
        "cs_credits": 3,
        "sjmini_credits": 2,
        "mock_discussion_token": 2,
        "shared_mock_credits": 1,
        "credits": 0,
    }


async def in_flight(service):
    """How many requests the server is answering, but for this one."""
    figures = (await service.http.get("/metrics")).text
    return float(re.search(r"^tallybook_requests_in_flight (\S+)", figures, re.MULTILINE)[1]) - 1


async def all_at_once(service, requests):
    """The answers to requests that all wait for the database at the same moment."""
    async with await psycopg.AsyncConnection.connect(service.uri) as connection:
        await connection.execute("lock table tallybook.contacts in access exclusive mode")
        answers = asyncio.gather(*requests)
        for _ in range(1000):
            if await in_flight(service) >= len(requests):
                break
            await asyncio.sleep(0.01)
    return await answers


async def test_fifty_misses_at_once_ask_hubspot_once_or_twice(service):
    """They are gathered for a few milliseconds into one call; all are answered and stored."""
    pairs = [service.unmet() for _ in range(50)]
    before = await batch_reads(service)
    answers = await all_at_once(service, [service.check(pair) for pair in pairs])
    assert {each.status_code for each in answers} == {200}
    assert {each.json()["data"]["source"] for each in answers} == {"hubspot"}
    assert 1 <= await batch_reads(service) - before <= 2
    again = await asyncio.gather(*(service.check(pair) for pair in pairs))
    assert {each.json()["data"]["source"] for each in again} == {"database"}


async def test_the_same_student_asked_by_many_at_once_is_asked_once(service):
    """Thirty requests of two addresses, one call for one contact."""
    pair = service.unmet()
    before = await batch_reads(service)
    me = [service.http.get("/api/user/me", params=pair, headers=service.as_app) for _ in range(10)]
    answers = await all_at_once(service, [*(service.check(pair) for _ in range(20)), *me])
    assert {each.status_code for each in answers} == {200}
    assert await batch_reads(service) - before == 1
    assert len({each.json()["data"]["id"] for each in answers}) == 1


async def test_a_pair_hubspot_does_not_know_is_remembered(service):
    """404 twice, one call; afterwards nothing is stored of it."""
    pair = {"student_id": "4040404", "email": "nobody-at-all@example.com"}
    before = await batch_reads(service)
    for _ in range(3):
        refused(await service.check(pair), 404, "STUDENT_NOT_FOUND")
    assert await batch_reads(service) - before == 1
    assert not await service.run("select 1 from tallybook.contacts where email = %s", pair["email"])


async def test_the_student_id_has_to_match_what_hubspot_has(service):
    """The e-mail is right and the id is another's: 404; the right pair still works."""
    pair, other = service.unmet(), service.unmet()
    refused(await service.check(pair | {"student_id": other["student_id"]}), 404, "STUDENT_NOT_FOUND")
    data_of(await service.check(pair))


async def test_who_is_no_student_or_archived_in_hubspot_is_not_found(service):
    """A contact without a student_id, and one in HubSpot's bin."""
    created = await service.simulator.edit(
        object_type="contacts", properties={"email": "prospect@example.com"}
    )
    assert created["id"]
    refused(
        await service.check({"student_id": "55501", "email": "prospect@example.com"}),
        404,
        "STUDENT_NOT_FOUND",
    )
    gone = await service.simulator.edit(
        object_type="contacts", properties={"email": "gone@example.com", "student_id": "55502"}
    )
    await service.simulator.edit(object_type="contacts", id=gone["id"], archived=True)
    refused(
        await service.check({"student_id": "55502", "email": "gone@example.com"}), 404, "STUDENT_NOT_FOUND"
    )


async def test_spelling_in_hubspot_does_not_matter(service):
    """Mixed case there, odd case and spaces here: the same student, balances and name."""
    await service.simulator.edit(
        object_type="contacts",
        properties={
            "email": "Grace.Hopper@Example.com",
            "student_id": "gh1906",
            "firstname": "Grace",
            "lastname": "Hopper",
            "sj_credits": "7",
        },
    )
    data = data_of(await service.check({"student_id": " GH1906", "email": "GRACE.hopper@example.COM "}))
    assert (data["available_credits"], data["student_name"]) == (7, "Grace Hopper")


async def test_a_number_hubspot_cannot_tell_is_not_zero(service):
    """A text in a balance: 503 with a time to come back for what it would pay, the rest is known."""
    await service.simulator.edit(
        object_type="contacts",
        properties={
            "email": "odd@example.com",
            "student_id": "55503",
            "sj_credits": "many",
            "cs_credits": "2",
        },
    )
    pair = {"student_id": "55503", "email": "odd@example.com"}
    for _ in range(2):
        answer = await service.check(pair)
        refused(answer, 503, "CRM_BUSY")
        assert int(answer.headers["retry-after"]) >= 1
    ((theirs,),) = await service.run(
        "select s.theirs from tallybook.sync_conflicts s join tallybook.contacts c on c.id = s.object_id"
        " where c.email = %s and s.kind = 'unreadable' and s.resolved_at is null",
        pair["email"],
    )
    assert theirs == "many"
    data = data_of(await service.check(pair, mock_type="Clinical Skills"))
    assert data["available_credits"] == 2


async def test_a_first_booking_of_a_student_who_is_not_stored_works(service):
    """Miss, store and book in one request."""
    from support.factories import make_mock_exam

    exam = await make_mock_exam(service.db, days=4)
    answer = await service.http.post(
        "/api/bookings/create",
        json={"student_id": "1599000", "email": "student0@example.com", "mock_exam_id": str(exam.id)},
        headers=service.as_app,
    )
    assert data_of(answer, 201)["credits_after"]["sj_credits"] == 4


async def test_misses_of_unsigned_callers_use_at_most_three_tenths_of_the_budget(start_service):
    """With ten calls in ten seconds strangers get three and the next is 503 within 2 s; a key still works."""
    service = await start_service(
        contacts=20, HUBSPOT_CALLS_PER_10S="10", TALLYBOOK_STUDENT_AUTH="pair", TALLYBOOK_LOGIN_CODE="none"
    )
    # The first miss asks whose portal it is, too.
    data_of(await service.check(service.unmet()))
    await service.run("delete from tallybook.crm_call_slots")
    for _ in range(3):
        data_of(await service.check(service.unmet(), headers={}))
    for send in (
        lambda pair: service.check(pair, headers={}),
        lambda pair: service.http.post("/api/user/login", json=pair),
    ):
        began = time.monotonic()
        answer = await send(service.unmet())
        refused(answer, 503, "CRM_BUSY")
        assert time.monotonic() - began < 2.2
        assert int(answer.headers["retry-after"]) >= 1
    data_of(await service.check(service.unmet()))
    stats = await service.simulator.calls()
    assert (stats["calls"]["batch_read"], stats["rejected_429"]) == (5, 0)


async def test_no_log_line_names_a_person(service):
    """After all of the above: no e-mail address, no name, no credential."""
    pair = service.unmet()
    for _ in range(2):
        data_of(await service.check(pair))
    text = service.server.text()
    assert service.server.log("cache_hit")
    assert service.server.log("cache_miss")
    assert "@" not in text
    assert "%40" not in text
    for name in (*_names, "example.com", "Liam", "Khan", service.api_key.split("_", 2)[2]):
        assert name not in text, name
    assert not re.search(r"eyJ[\w-]+\.", text)
    for line in service.server.log():
        assert set(line) <= {
            "route", "method", "status", "ms", "code", "caller", "contact", "key", "event", "at", "level",
            "request_id", "url", "processes",
        }, line  # fmt: skip
