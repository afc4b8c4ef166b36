"""Bad input gets a clear error and changes nothing, address by address."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from e2e.service import code_of, data_of, refused
from support.factories import make_mock_exam

BODIES = {
    "POST /api/user/login": {"student_id": "1", "email": "a@b.c"},
    "POST /api/user/logout": {},
    "PUT /api/user/update-ndecc-date": {"ndecc_exam_date": "2099-01-01"},
    "POST /api/mock-exams/validate-credits": {"mock_type": "Mini-mock"},
    "POST /api/mock-discussions/validate-credits": {},
    "POST /api/bookings/create": {"mock_exam_id": "1"},
    "POST /api/mock-discussions/create-booking": {"mock_exam_id": "1"},
    "POST /api/bookings/batch-cancel": {"booking_ids": ["1"]},
    "DELETE /api/bookings/1": {},
    "POST /api/bookings/1/move": {"mock_exam_id": "1"},
}
QUERIES = [
    "/api/user/me",
    "/api/mock-exams/available?mock_type=Mini-mock",
    "/api/mock-exams/1/capacity",
    "/api/mock-discussions/available",
    "/api/bookings/list",
    "/api/bookings/1",
    "/api/bookings/1.ics",
    "/api/bookings/1/cancellation",
    "/api/auth/credits",
    "/api/auth/usage-history",
]
TOO_LONG = "x" * 10_000
ODD_IDS = {
    "a UUID nobody has": str(uuid.UUID(int=5)),
    "a HubSpot id nobody has": "999999999999",
    "a booking_id nobody has": "Mini-mock-1599005-May 1, 2026",
    "a quote": "x' or 'a'='a",
    "two quotes and a comment": "1'; drop table tallybook.bookings; --",
    "a backslash": "\\' or 1=1 --",
    "percent signs": "%s %(id)s %%",
    "a huge number": "9" * 60,
    "letters of other scripts": "日本語-é-ß-🎓",
    "a UUID with braces": "{00000000-0000-4000-8000-000000000000}",
    "a like pattern": "%",
    "dots": "..%2f..",
}
UNCLEAN = {"a zero byte": "1\x002", "a line break": "1\r\n2", "an escape": "1\x1b[31m", "C1": "1\x852"}


@pytest.fixture(scope="module")
async def ada(service):
    return await service.student(credits={"sj_credits": 3})


@pytest.fixture(scope="module")
async def booking(service, ada):
    exam = await make_mock_exam(service.db, days=5)
    answer = await service.http.post(
        "/api/bookings/create", json={"mock_exam_id": str(exam.id)}, headers=ada.headers
    )
    return data_of(answer, 201)


@pytest.fixture
async def student(service, booking):
    """A student with calls left, since there are many here."""
    return await service.student(credits={"sj_credits": 1})


@pytest.fixture(autouse=True)
async def nothing_changes(service, student):
    """Whatever a test of this file sends, no row is different afterwards."""
    before = await service.fingerprint()
    yield
    assert await service.fingerprint() == before


async def send(service, student, name, content, media_type="application/json"):
    method, path = name.split()
    headers = student.headers | {"content-type": media_type}
    return await service.http.request(method, path, content=content, headers=headers)


@pytest.mark.parametrize(
    "content",
    [b"{", b'{"a":1,}', b"[1", b"nul", b"{'a': 1}", b'{"a":"\xff"}', b"\xef\xbb\xbf{}", b"[" * 60_000],
    ids=["brace", "comma", "list", "word", "quotes", "not UTF-8", "BOM", "deep"],
)
async def test_what_is_not_json_is_refused(service, student, content):
    """400 VALIDATION_ERROR saying that the body is not JSON, at every address that takes one."""
    for name in BODIES:
        details = refused(await send(service, student, name, content), 400, "VALIDATION_ERROR")
        assert details["field"] == "body"


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_of_another_type_or_with_unknown_fields_is_refused(service, student, name):
    """Lists, texts, numbers, null for the whole; wrong types for each field; fields not known."""
    for whole in ("[]", '"text"', "1", "null", "true"):
        refused(await send(service, student, name, whole.encode()), 400, "VALIDATION_ERROR")
    for field in BODIES[name]:
        for wrong in (1, 1.5, [], {}, {"$ne": 1}, None, True):
            content = json.dumps(BODIES[name] | {field: wrong}).encode()
            answer = await send(service, student, name, content)
            assert (answer.status_code, code_of(answer)) == (400, "VALIDATION_ERROR"), (field, wrong)
            assert field in answer.json()["error"]["details"]["field"], (field, wrong)
    for unknown in ("colour", "__proto__", "balance", "credits", "is_admin", "x" * 5000):
        content = json.dumps(BODIES[name] | {unknown: 1}).encode()
        details = refused(await send(service, student, name, content), 400, "VALIDATION_ERROR")
        assert details["field"] == unknown[:80]


@pytest.mark.parametrize("path", QUERIES)
async def test_an_unknown_parameter_of_the_query_is_refused(service, student, path):
    """It is named; so is one given twice with two values."""
    for query, field in (("colour=red", "colour"), ("page=1&page=2", "page"), ("%ff=1", "query")):
        answer = await service.http.get(path + ("&" if "?" in path else "?") + query, headers=student.headers)
        assert refused(answer, 400, "VALIDATION_ERROR")["field"] == field


@pytest.mark.parametrize("name", BODIES)
async def test_an_oversized_body_is_refused_announced_or_chunked(service, student, name):
    """413 beyond 64 KB; a chunked body without end is cut off."""
    for size in (70_000, 2_000_000):
        too_large = json.dumps(BODIES[name] | {"reason": "x" * size}).encode()
        refused(await send(service, student, name, too_large), 413, "PAYLOAD_TOO_LARGE")

    async def chunks():
        yield b'{"reason": "'
        for _ in range(100):
            yield b"x" * 10_000
            await asyncio.sleep(0)

    refused(await send(service, student, name, chunks()), 413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("name", [name for name in BODIES if BODIES[name]])
async def test_a_body_has_to_be_announced_as_json(service, student, name):
    """415 for forms, text and nothing said."""
    content = json.dumps(BODIES[name]).encode()
    for media_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""):
        answer = await send(service, student, name, content, media_type)
        refused(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


def addresses_of_bookings(ref):
    quoted = quote(ref, safe="")
    return [
        ("GET", f"/api/bookings/{quoted}", None),
        ("GET", f"/api/bookings/{quoted}.ics", None),
        ("GET", f"/api/bookings/{quoted}/cancellation", None),
        ("DELETE", f"/api/bookings/{quoted}", {}),
        ("POST", f"/api/bookings/{quoted}/move", {"mock_exam_id": str(uuid.UUID(int=5))}),
    ]


@pytest.mark.parametrize("ref", ODD_IDS.values(), ids=ODD_IDS)
async def test_an_id_nobody_has_is_not_found_whatever_it_looks_like(service, student, ref):
    """404 BOOKING_NOT_FOUND or EXAM_NOT_FOUND; a list of bookings names each."""
    for method, path, body in addresses_of_bookings(ref):
        answer = await service.http.request(method, path, json=body, headers=student.headers)
        refused(answer, 404, "BOOKING_NOT_FOUND")
    refused(await service.http.get(f"/api/mock-exams/{quote(ref, safe='')}/capacity"), 404, "EXAM_NOT_FOUND")
    created = await service.http.post(
        "/api/bookings/create", json={"mock_exam_id": ref}, headers=student.headers
    )
    refused(created, 404, "EXAM_NOT_FOUND")
    several = await service.http.post(
        "/api/bookings/batch-cancel", json={"booking_ids": [ref], "dry_run": True}, headers=student.headers
    )
    # The address has no dry run: cancelling what nobody has changes nothing anyway.
    refused(several, 400, "VALIDATION_ERROR")
    several = await service.http.post(
        "/api/bookings/batch-cancel", json={"booking_ids": [ref]}, headers=student.headers
    )
    (result,) = data_of(several)["results"]
    assert result["error"]["code"] == "BOOKING_NOT_FOUND"


@pytest.mark.parametrize("ref", [*UNCLEAN.values(), TOO_LONG], ids=[*UNCLEAN, "10 kB"])
async def test_an_id_with_control_characters_or_of_10_kb_is_refused(service, student, ref):
    """400 naming the field, never an error of the database."""
    for method, path, body in addresses_of_bookings(ref):
        answer = await service.http.request(method, path, json=body, headers=student.headers)
        assert refused(answer, 400, "VALIDATION_ERROR")["field"] == "booking"
    answer = await service.http.get(f"/api/mock-exams/{quote(ref, safe='')}/capacity")
    assert refused(answer, 400, "VALIDATION_ERROR")["field"] == "mock_exam"
    for field, path, extra in (
        ("mock_exam_id", "/api/bookings/create", {}),
        ("mock_type", "/api/mock-exams/validate-credits", {}),
        ("student_id", "/api/user/login", {"email": "a@b.c"}),
        ("email", "/api/user/login", {"student_id": "1599005"}),
        ("attending_location", "/api/bookings/create", {"mock_exam_id": "1"}),
    ):
        answer = await service.http.post(path, json={field: ref} | extra, headers=student.headers)
        assert refused(answer, 400, "VALIDATION_ERROR")["field"] == field


@pytest.mark.parametrize(
    "on",
    ["2027-02-29", "2026-13-01", "2026-00-10", "2026-1-5", "20261121", "tomorrow", "", "2026-11-21T10:00"],
)
async def test_a_date_that_does_not_exist_is_refused(service, student, on):
    """400 naming the field; so is a day that is over."""
    answer = await service.http.put(
        "/api/user/update-ndecc-date", json={"ndecc_exam_date": on}, headers=student.headers
    )
    assert refused(answer, 400, "VALIDATION_ERROR")["field"] == "ndecc_exam_date"
    past = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()
    answer = await service.http.put(
        "/api/user/update-ndecc-date", json={"ndecc_exam_date": past}, headers=student.headers
    )
    assert refused(answer, 400, "VALIDATION_ERROR")["field"] == "ndecc_exam_date"


@pytest.mark.parametrize("spelling", ["{}", "  {}", "{}  ", "\t{}", "{}\n"])
async def test_an_e_mail_in_odd_case_and_with_spaces_is_the_same(service, ada, booking, spelling):
    """Trimmed and lower-cased; the student ID too."""
    pair = {
        "student_id": f" {ada.contact.student_id.lower()} ",
        "email": spelling.format(ada.contact.email.title()),
    }
    answer = await service.check(pair)
    if "\t" in spelling or "\n" in spelling:
        refused(answer, 400, "VALIDATION_ERROR")
    else:
        assert data_of(answer)["id"] == str(ada.contact.id)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("email", "nobody"),
        ("email", "a@b@c"),
        ("email", "@example.com"),
        ("email", "a b@example.com"),
        ("email", "x" * 300 + "@example.com"),
        ("student_id", "15-99"),
        ("student_id", "1' or 1=1"),
        ("student_id", "ß"),
        ("student_id", "\uff19\uff19"),
    ],
)
async def test_what_cannot_be_an_e_mail_or_a_student_id_is_named(service, field, wrong):
    """400 before anybody is asked, HubSpot least of all."""
    calls = (await service.simulator.calls())["total"]
    pair = {"student_id": "1599005", "email": "student5@example.com"} | {field: wrong}
    for answer in (await service.check(pair), await service.http.post("/api/user/login", json=pair)):
        assert refused(answer, 400, "VALIDATION_ERROR")["field"] == field
    assert (await service.simulator.calls())["total"] == calls


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-1",
        "page=x",
        "page=1.5",
        "page=99999999999999999999",
        "limit=0",
        "limit=101",
        "filter=some",
    ],
)
async def test_a_page_that_cannot_be_is_refused(service, student, query):
    """400 naming the parameter; a page beyond the last is empty."""
    answer = await service.http.get(f"/api/bookings/list?{query}", headers=student.headers)
    assert refused(answer, 400, "VALIDATION_ERROR")["field"] == query.split("=")[0]
    far = await service.http.get("/api/bookings/list?page=1000000", headers=student.headers)
    assert data_of(far)["bookings"] == []


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ä"], ids=["empty", "long", "space", "umlaut"])
async def test_an_idempotency_key_that_cannot_be_is_refused(service, student, key):
    """400 naming the header; a refusal stores nothing."""
    headers = student.headers | {"idempotency-key": key.encode("latin-1")}
    answer = await service.http.post("/api/bookings/create", json={"mock_exam_id": "1"}, headers=headers)
    assert refused(answer, 400, "VALIDATION_ERROR")["field"] == "Idempotency-Key"


async def test_form_answers_that_make_no_sense_are_refused(service, student, booking):
    """A hand that is neither, a place nobody has."""
    for field, wrong in (("dominant_hand", "both"), ("dominant_hand", 1), ("attending_location", "The moon")):
        answer = await service.http.post(
            "/api/bookings/create",
            json={"mock_exam_id": booking["mock_exam_id"], field: wrong},
            headers=student.headers,
        )
        assert refused(answer, 400, "VALIDATION_ERROR")["field"] == field


async def test_fifty_bookings_at_most_and_at_least_one_are_cancelled_together(service, student):
    """The list is bounded; what is in it has to be ids."""
    for wrong in ([], ["1"] * 51, ["1", 2], [""], "1"):
        answer = await service.http.post(
            "/api/bookings/batch-cancel", json={"booking_ids": wrong}, headers=student.headers
        )
        assert refused(answer, 400, "VALIDATION_ERROR")["field"].startswith("booking_ids")
