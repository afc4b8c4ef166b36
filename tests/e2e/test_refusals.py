"""Every refusal a booking can meet, through HTTP, with its status; and that a refusal changes nothing."""

import asyncio
from contextlib import asynccontextmanager

import psycopg
import pytest

from e2e.service import data_of, refused
from support.factories import balances, make_mock_exam, start_soon
from tallybook.domain.catalog import default_catalog_text

ANY = "00000000-0000-4000-8000-000000000000"
MINI_MOCK_RULES = """prerequisite_rule = "all_booked"
booking_closes_min = 30
cancellation_closes_min = 60
"""


def catalog_with_closing_times():
    """The packaged catalog, but for Mini-mocks booking closes half an hour and cancelling an hour before."""
    text = default_catalog_text()
    start = text.index('name = "Mini-mock"')
    usual = MINI_MOCK_RULES.replace("30", "0").replace("60", "0")
    return text[:start] + text[start:].replace(usual, MINI_MOCK_RULES, 1)


@pytest.fixture(scope="module")
async def service(start_service):
    return await start_service(catalog=catalog_with_closing_times())


@pytest.fixture
async def student(service):
    return await service.student(
        credits={"sj_credits": 3, "cs_credits": 3, "sjmini_credits": 3, "mock_discussion_token": 3}
    )


async def book(service, student, exam, *, key=None, **more):
    headers = student.headers | ({"idempotency-key": key} if key else {})
    body = {"mock_exam_id": str(getattr(exam, "id", exam))} | more
    return await service.http.post("/api/bookings/create", json=body, headers=headers)


async def expect_unchanged(service, request, status, code):
    before = await service.fingerprint()
    answer = await request
    details = refused(answer, status, code)
    assert await service.fingerprint() == before
    return details, answer


async def test_a_session_nobody_knows(service, student):
    """By any kind of id: 404 EXAM_NOT_FOUND."""
    for ref in (ANY, "999999999", "no session"):
        await expect_unchanged(service, book(service, student, ref), 404, "EXAM_NOT_FOUND")
        answer = await service.http.get(f"/api/mock-exams/{ref}/capacity")
        refused(answer, 404, "EXAM_NOT_FOUND")


@pytest.mark.parametrize(
    ("exam", "code"),
    [
        ({"activation": "inactive"}, "EXAM_NOT_ACTIVE"),
        ({"activation": "scheduled", "opens_at": "2100-01-01T00:00:00Z"}, "EXAM_NOT_ACTIVE"),
        ({"days": -1}, "EXAM_IN_PAST"),
    ],
    ids=["inactive", "not yet open", "past"],
)
async def test_a_session_that_cannot_be_booked_now(service, student, exam, code):
    """Inactive, not yet open, over: 409 with the code that says which, in a dry run too."""
    made = await make_mock_exam(service.db, **exam)
    details, _ = await expect_unchanged(service, book(service, student, made), 409, code)
    if "opens_at" in exam:
        assert details == {"opens_at": "2100-01-01T00:00:00Z"}
    await expect_unchanged(service, book(service, student, made, dry_run=True), 409, code)


async def test_booking_closes_when_the_catalog_says(service, student):
    """Twenty minutes before the start a Mini-mock is closed; forty-five before, it is open."""
    closed, still_open = [
        await make_mock_exam(service.db, mock_type="Mini-mock", days=days) for days in (5, 6)
    ]
    await start_soon(service.db, closed, minutes=20)
    details, _ = await expect_unchanged(service, book(service, student, closed), 409, "BOOKING_CLOSED")
    assert details["closed_at"].endswith("Z")
    await start_soon(service.db, still_open, minutes=45)
    booked = data_of(await book(service, student, still_open), 201)

    address = f"/api/bookings/{booked['id']}"
    shown = data_of(await service.http.get(f"{address}/cancellation", headers=student.headers))
    assert (shown["allowed"], shown["refusal"], shown["credits_restored"]) == (
        False,
        "CANCELLATION_CLOSED",
        0,
    )
    cancel = service.http.request("DELETE", address, json={}, headers=student.headers)
    await expect_unchanged(service, cancel, 409, "CANCELLATION_CLOSED")
    later = await make_mock_exam(service.db, mock_type="Mini-mock", days=9)
    move = service.http.post(f"{address}/move", json={"mock_exam_id": str(later.id)}, headers=student.headers)
    await expect_unchanged(service, move, 409, "CANCELLATION_CLOSED")


async def test_one_booking_of_a_type_on_a_day(service, student):
    """The same session under a new key, or another of its type on that date: 409 DUPLICATE_BOOKING."""
    morning, noon = [
        await make_mock_exam(service.db, days=11, start=start, end=end)
        for start, end in (("08:00", "09:00"), ("12:00", "13:00"))
    ]
    booked = data_of(await book(service, student, morning, key="first"), 201)
    for again in (book(service, student, morning, key="second"), book(service, student, noon)):
        details, _ = await expect_unchanged(service, again, 409, "DUPLICATE_BOOKING")
        assert details["booking_id"] == booked["booking_id"]


async def test_bookings_may_touch_but_not_overlap(service, student):
    """A session that begins when the other ends is fine; a minute earlier is 409 TIME_CONFLICT."""
    first = await make_mock_exam(service.db, days=12, start="08:00", end="09:00")
    over = await make_mock_exam(service.db, mock_type="Clinical Skills", days=12, start="08:59", end="10:00")
    after = await make_mock_exam(service.db, mock_type="Clinical Skills", days=12, start="09:00", end="10:00")
    data_of(await book(service, student, first), 201)
    await expect_unchanged(service, book(service, student, over), 409, "TIME_CONFLICT")
    data_of(await book(service, student, after), 201)


async def test_a_prerequisite_has_to_be_booked(service, student):
    """409 PREREQUISITE_NOT_MET names what is missing; with it, the discussion can be booked."""
    needed = await make_mock_exam(service.db, days=13)
    discussion = await make_mock_exam(
        service.db, mock_type="Mock Discussion", days=14, location="Online", prerequisites=[needed]
    )
    details, _ = await expect_unchanged(
        service, book(service, student, discussion), 409, "PREREQUISITE_NOT_MET"
    )
    assert details == {"rule": "all_booked", "missing_mock_exam_ids": [str(needed.id)]}
    data_of(await book(service, student, needed), 201)
    data_of(await book(service, student, discussion), 201)


async def test_without_credits_the_answer_says_what_would_help(service):
    """402 with what is needed, what is there and held per credit type; also in a dry run."""
    student = await service.student(credits={"cs_credits": 5})
    exam = await make_mock_exam(service.db, days=15)
    for dry_run in (False, True):
        details, _ = await expect_unchanged(
            service, book(service, student, exam, dry_run=dry_run), 402, "INSUFFICIENT_CREDITS"
        )
        assert details["needed"] == 1
        assert [each["credit_type"] for each in details["credits"]] == ["sj_credits", "shared_mock_credits"]
        assert all((each["available"], each["held"]) == (0, 0) for each in details["credits"])
        assert "Situational Judgment Token" in details["what_helps"]


async def test_a_full_session_is_full(service, student):
    """409 EXAM_FULL for booking and for moving there; the seat that is taken stays taken once."""
    exam = await make_mock_exam(service.db, days=16, capacity=1)
    other = await make_mock_exam(service.db, days=17)
    data_of(await book(service, await service.student(credits={"sj_credits": 1}), exam), 201)
    details, _ = await expect_unchanged(service, book(service, student, exam), 409, "EXAM_FULL")
    assert details == {"capacity": 1}
    booked = data_of(await book(service, student, other), 201)
    move = service.http.post(
        f"/api/bookings/{booked['id']}/move", json={"mock_exam_id": str(exam.id)}, headers=student.headers
    )
    await expect_unchanged(service, move, 409, "EXAM_FULL")


async def test_a_booking_that_is_over_is_not_changed(service, student):
    """Cancelled: not moved. Completed: neither moved nor cancelled. 409 BOOKING_NOT_LIVE."""
    exam, other = [await make_mock_exam(service.db, days=days) for days in (18, 19)]
    booked = data_of(await book(service, student, exam), 201)
    address = f"/api/bookings/{booked['id']}"

    def move():
        return service.http.post(
            f"{address}/move", json={"mock_exam_id": str(other.id)}, headers=student.headers
        )

    await service.run(
        "update tallybook.bookings set status = 'Completed', attendance = 'Yes' where id = %s", booked["id"]
    )
    await expect_unchanged(service, move(), 409, "BOOKING_NOT_LIVE")
    cancel = service.http.request("DELETE", address, json={}, headers=student.headers)
    await expect_unchanged(service, cancel, 409, "BOOKING_NOT_LIVE")
    await service.run(
        "update tallybook.bookings set status = 'Active', attendance = null where id = %s", booked["id"]
    )
    data_of(await service.http.request("DELETE", address, json={}, headers=student.headers))
    await expect_unchanged(service, move(), 409, "BOOKING_NOT_LIVE")


async def test_a_booking_moves_within_its_type_only(service, student):
    """409 MOCK_TYPE_MISMATCH names both types; a session nobody knows is 404."""
    exam = await make_mock_exam(service.db, days=20)
    other = await make_mock_exam(service.db, mock_type="Clinical Skills", days=21)
    address = f"/api/bookings/{data_of(await book(service, student, exam), 201)['id']}/move"
    move = service.http.post(address, json={"mock_exam_id": str(other.id)}, headers=student.headers)
    details, _ = await expect_unchanged(service, move, 409, "MOCK_TYPE_MISMATCH")
    assert details == {"from": "Situational Judgment", "to": "Clinical Skills"}
    move = service.http.post(address, json={"mock_exam_id": ANY}, headers=student.headers)
    await expect_unchanged(service, move, 404, "EXAM_NOT_FOUND")


async def test_a_mock_type_nobody_knows_is_named_with_those_there_are(service, student):
    """400 INVALID_MOCK_TYPE wherever a type is named."""
    check = service.http.post(
        "/api/mock-exams/validate-credits", json={"mock_type": "Chess"}, headers=student.headers
    )
    details, _ = await expect_unchanged(service, check, 400, "INVALID_MOCK_TYPE")
    assert "Mini-mock" in details["allowed"]
    listed = service.http.get("/api/mock-exams/available?mock_type=Chess")
    await expect_unchanged(service, listed, 400, "INVALID_MOCK_TYPE")
    unmet = service.check(service.unmet(), mock_type="Chess")
    await expect_unchanged(service, unmet, 400, "INVALID_MOCK_TYPE")


@pytest.mark.parametrize("header", ["Idempotency-Key", "X-Idempotency-Key"])
async def test_the_same_key_and_request_give_the_first_answer_again(service, student, header):
    """Byte for byte, with Idempotency-Replayed; nothing is booked or spent a second time."""
    exam = await make_mock_exam(service.db, days=22)
    headers = student.headers | {header: "k-1"}
    body = {"mock_exam_id": str(exam.id)}
    first = await service.http.post("/api/bookings/create", json=body, headers=headers)
    data_of(first, 201)
    assert "idempotency-replayed" not in first.headers
    before = await service.fingerprint()
    camel = {"mockExamId": str(exam.id)}
    for sent in (body, camel):
        again = await service.http.post("/api/bookings/create", json=sent, headers=headers)
        assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
        assert again.content == first.content
    assert await service.fingerprint() == before

    other = await make_mock_exam(service.db, days=23)
    reused = book(service, student, other, key="k-1")
    await expect_unchanged(service, reused, 422, "IDEMPOTENCY_KEY_REUSED")


async def test_a_key_belongs_to_its_caller_student_and_route(service, student):
    """The same key of another student, and of a back end for this one, is another key."""
    exam = await make_mock_exam(service.db, days=24)
    other = await service.student(credits={"sj_credits": 1})
    data_of(await book(service, student, exam, key="mine"), 201)
    data_of(await book(service, other, exam, key="mine"), 201)
    answer = await service.http.post(
        "/api/bookings/create",
        json={"mock_exam_id": str(exam.id), **student.pair},
        headers=service.as_app | {"idempotency-key": "mine"},
    )
    refused(answer, 409, "DUPLICATE_BOOKING")


async def test_cancelling_and_moving_are_replayed_too(service, student):
    """With a key the first answer comes again, also after the world has changed."""
    here, there = [await make_mock_exam(service.db, days=days) for days in (25, 26)]
    booked = data_of(await book(service, student, here), 201)
    keyed = student.headers | {"idempotency-key": "again"}
    address = f"/api/bookings/{booked['id']}"
    requests = [
        ("POST", f"{address}/move", {"mock_exam_id": str(there.id)}),
        ("DELETE", address, {"reason": "ill"}),
        ("POST", "/api/bookings/batch-cancel", {"booking_ids": [booked["id"]]}),
    ]
    firsts = [
        await service.http.request(method, path, json=body, headers=keyed) for method, path, body in requests
    ]
    before = await service.fingerprint()
    for first, (method, path, body) in zip(firsts, requests, strict=True):
        assert first.status_code == 200
        again = await service.http.request(method, path, json=body, headers=keyed)
        assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert await service.fingerprint() == before


async def test_a_refusal_does_not_use_up_a_key(service):
    """The student buys a credit and tries again with the same key: booked."""
    student = await service.student()
    exam = await make_mock_exam(service.db, days=27)
    await expect_unchanged(service, book(service, student, exam, key="poor"), 402, "INSUFFICIENT_CREDITS")
    await service.run(
        "select tallybook.grant_credits(%s, 'sj_credits', 1, 'for a test')", str(student.contact.id)
    )
    data_of(await book(service, student, exam, key="poor"), 201)


async def test_a_double_click_without_a_key_is_recognised(service, student):
    """200 with the booking that is there and `idempotent`; one seat, one credit."""
    exam = await make_mock_exam(service.db, days=28)
    first = data_of(await book(service, student, exam), 201)
    before = await service.fingerprint()
    second = await book(service, student, exam)
    assert data_of(second) == first | {"idempotent": True}
    assert "idempotency-replayed" not in second.headers
    assert await service.fingerprint() == before


async def test_twenty_requests_with_one_key_at_once_book_once(service, student):
    """All get the same 201; nineteen say that they are replayed."""
    exam = await make_mock_exam(service.db, days=29)
    answers = await asyncio.gather(*(book(service, student, exam, key="many") for _ in range(20)))
    assert {each.status_code for each in answers} == {201}
    assert len({each.content for each in answers}) == 1
    assert sum("idempotency-replayed" in each.headers for each in answers) == 19
    assert (await balances(service.db, student.contact))["sj_credits"] == 2


@asynccontextmanager
async def holding(service, statement, *values):
    """What this statement locks stays locked inside the block."""
    async with await psycopg.AsyncConnection.connect(service.uri) as connection:
        await connection.execute(statement, values)
        yield


async def test_what_waits_too_long_is_told_when_to_come_back(service):
    """A key whose first request still runs: 409; a contact somebody else works on: 503. Both after 2 s."""
    busy, locked = [await service.student(credits={"sj_credits": 1}) for _ in range(2)]
    exam = await make_mock_exam(service.db, days=30)
    before = await service.fingerprint()
    key = (
        "select pg_advisory_xact_lock(hashtextextended(concat_ws(chr(31),"
        " %s::text, %s::uuid, 'POST /api/bookings/create', 'slow'), 7))"
    )
    async with (
        holding(service, key, f"student:{busy.contact.id}", busy.contact.id),
        holding(service, "select 1 from tallybook.contacts where id = %s for update", locked.contact.id),
    ):
        running, waiting = await asyncio.gather(
            book(service, busy, exam, key="slow"), book(service, locked, exam)
        )
    refused(running, 409, "IDEMPOTENCY_IN_PROGRESS")
    refused(waiting, 503, "LOCK_TIMEOUT")
    assert int(running.headers["retry-after"]) >= 1
    assert int(waiting.headers["retry-after"]) >= 1
    assert await service.fingerprint() == before
    data_of(await book(service, busy, exam, key="slow"), 201)
    data_of(await book(service, locked, exam), 201)


async def test_a_wrong_e_mail_and_an_unknown_id_get_the_same_answer(service, student):
    """Nobody learns which of the two is known: same status, code, message and details."""
    wrong_email = {"student_id": student.contact.student_id, "email": "somebody@example.com"}
    unknown_id = {"student_id": "9999999", "email": student.contact.email}
    nobody = {"student_id": "8888888", "email": "nobody@example.com"}
    for path, more in (
        ("/api/user/login", {}),
        ("/api/mock-exams/validate-credits", {"mock_type": "Mini-mock"}),
        ("/api/bookings/create", {"mock_exam_id": ANY}),
    ):
        errors = []
        for pair in (wrong_email, unknown_id, nobody):
            headers = {} if path.endswith("login") else service.as_app
            answer = await service.http.post(path, json=pair | more, headers=headers)
            refused(answer, 404, "STUDENT_NOT_FOUND")
            errors.append(answer.json()["error"])
        assert errors[0] == errors[1] == errors[2]


async def test_a_signed_in_person_has_a_limit_of_calls(service):
    """The 121st call in a minute is 429 with a time to come back; another person is not affected."""
    student, other = await service.student(), await service.student()

    def me(who):
        return service.http.get("/api/user/me", headers=who.headers)

    answers = [await me(student) for _ in range(120)]
    # A minute may have ended meanwhile, which gives back the share of it that has gone by.
    answers += [await me(student) for _ in range(10)]
    refusals = [each for each in answers if each.status_code == 429]
    assert len(refusals) >= 5
    refused(refusals[0], 429, "RATE_LIMITED")
    assert int(refusals[0].headers["retry-after"]) >= 1
    data_of(await me(other))


async def test_an_address_exists_only_with_its_methods(service):
    """405 with Allow; 404 for what is not there."""
    answer = await service.http.get("/api/bookings/create")
    # GET /api/bookings/{booking} exists, yet `create` is an address of its own.
    refused(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "OPTIONS, POST"
    answer = await service.http.patch(f"/api/bookings/{ANY}")
    refused(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
    refused(await service.http.get("/api/nothing"), 404, "NOT_FOUND")
    options = await service.http.options("/api/bookings/create")
    assert (options.status_code, options.headers["allow"]) == (204, "OPTIONS, POST")
