"""The table of addresses: what exists, who may call it, and that the document tells it all."""

import re

import jsonschema
import pytest

from tallybook.api.callers import Access
from tallybook.api.docs_page import docs_page
from tallybook.api.openapi import openapi_document
from tallybook.api.routes import ROUTES

WHO_MAY = {
    Access.PUBLIC: """
        POST /api/user/login
        POST /api/admin/login
        GET /api/mock-exams/available
        GET /api/mock-exams/{mock_exam}/capacity
        GET /api/mock-discussions/available
        GET /api/credits/costs
        GET /healthz
        GET /readyz""",
    Access.STUDENT: """
        POST /api/user/logout
        GET /api/user/me
        PUT /api/user/update-ndecc-date
        POST /api/mock-exams/validate-credits
        POST /api/mock-discussions/validate-credits
        POST /api/mock-discussions/create-booking
        POST /api/bookings/create
        GET /api/bookings/list
        POST /api/bookings/batch-cancel
        GET /api/bookings/{booking}.ics
        GET /api/bookings/{booking}
        DELETE /api/bookings/{booking}
        GET /api/bookings/{booking}/cancellation
        POST /api/bookings/{booking}/move
        GET /api/auth/credits
        GET /api/auth/usage-history
        GET /auth/credits
        GET /auth/usage-history""",
    Access.APPLICATION: """
        POST /api/contacts
        GET /api/contacts/{contact}/credits
        GET /api/contacts/{contact}/entries
        POST /api/credits/check
        POST /api/credits/charge
        POST /api/credits/holds
        POST /api/credits/holds/{hold}/capture
        POST /api/credits/holds/{hold}/release
        POST /api/credits/refund""",
    Access.CRON: """
        GET /api/admin/cron/sync-supabase
        GET /api/admin/cron/activate-scheduled-exams
        GET /api/admin/cron/warm-contact-credits-cache
        GET /api/admin/cron/batch-sync-hubspot
        GET /api/admin/cron/reconcile
        GET /api/admin/cron/expire-holds""",
    Access.HUBSPOT: "POST /api/webhooks/hubspot",
    Access.STRIPE: "POST /api/webhooks/stripe",
    Access.METRICS: "GET /metrics",
    Access.STAFF: """
        POST /api/admin/logout
        GET /api/admin/sync/status
        GET /api/admin/sync/conflicts
        POST /api/admin/sync/conflicts/{conflict}/resolve
        GET /api/admin/sync/dead-letters
        POST /api/admin/sync/dead-letters/{type}/{letter}/retry
        POST /api/admin/sync/dead-letters/{type}/{letter}/discard
        POST /api/admin/sync/retry
        POST /api/admin/sync/reconcile
        POST /api/admin/sync/lanes/{lane}/resume
        DELETE /api/admin/cache/contact/{student_id}""",
    Access.DOCS: """
        GET /openapi.json
        GET /docs""",
}
DOCUMENT = openapi_document(ROUTES)
OPERATIONS = [
    (path, method, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
NOTHING = "00000000-0000-0000-0000-000000000000"


def name(route):
    return f"{route.method} {route.path}"


def test_every_route_has_the_caller_the_contract_gives_it():
    """A new route has to be written down here before it opens."""
    listed = {
        line.strip(): access for access, lines in WHO_MAY.items() for line in lines.strip().splitlines()
    }
    assert {name(route): route.access for route in ROUTES} == listed


@pytest.mark.parametrize("route", [each for each in ROUTES if each.access is not Access.PUBLIC], ids=name)
async def test_what_is_not_public_refuses_strangers_and_callers_of_another_kind(serve, route):
    """No credential, a wrong one, a student's token where none is due: 401 before anything is read."""
    served = await serve(
        cron_secret="s3cret",
        metrics_token="m3trics",
        hubspot_client_secret="h3bspot",
        stripe_webhook_secret="whsec",
        public_url="https://tallybook.example",
    )
    path = re.sub(r"\{\w+\}", NOTHING, route.path)
    # Through a proxy, as monitoring from elsewhere would come.
    strangers = [{}, {"authorization": "Bearer x"}, {"authorization": "Bearer tb_x_0123456789abcdef"}]
    if route.access is not Access.STUDENT:
        strangers.append(served.as_student())
    for headers in strangers:
        answer = await served.http.request(
            route.method, path, headers=headers | {"x-forwarded-for": "203.0.113.9"}, content=b"{"
        )
        assert answer.status_code == 401, headers
        assert answer.json()["error"]["code"] == "UNAUTHENTICATED"
        assert "www-authenticate" in answer.headers


async def test_health_needs_no_database_and_readiness_says_what_is_missing(serve):
    """One word, no detail for strangers."""

    async def behind():
        return "schema_behind"

    served = await serve(readiness=behind)
    assert (await served.http.get("/healthz")).json() == {"success": True, "data": {"status": "ok"}}
    ready = await served.http.get("/readyz")
    assert (ready.status_code, ready.json()["error"]["details"]) == (503, {"status": "schema_behind"})
    assert (await (await serve()).http.get("/readyz")).json()["data"] == {"status": "ready"}


async def test_a_cron_address_runs_its_job_with_the_time_it_may_take(serve):
    """A job that is not there is 404, a wrong time 400."""
    asked = []

    async def job(max_s):
        asked.append(max_s)
        return {"counts": {"contacts": 3}, "duration_ms": 1.5, "done": True}

    served = await serve(cron_secret="s3cret", cron_jobs={"sync-supabase": job})
    secret = {"authorization": "Bearer s3cret"}
    done = await served.http.get("/api/admin/cron/sync-supabase?max_s=20", headers=secret)
    assert done.json()["data"] == {"counts": {"contacts": 3}, "duration_ms": 1.5, "done": True}
    await served.http.get("/api/admin/cron/sync-supabase", headers=secret)
    assert asked == [20.0, 50.0]
    wrong = await served.http.get("/api/admin/cron/sync-supabase?max_s=0", headers=secret)
    assert wrong.json()["error"]["details"]["field"] == "max_s"
    missing = await served.http.get("/api/admin/cron/activate-scheduled-exams", headers=secret)
    assert missing.status_code == 404


async def test_without_a_database_a_write_is_503_and_says_when_to_come_back(serve):
    """Nothing is guessed: no zero, no half booking."""
    served = await serve()
    answer = await served.http.post(
        "/api/bookings/create", json={"mock_exam_id": NOTHING}, headers=served.as_student()
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "DATABASE_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("key", "status"), [("a", 503), ("x" * 255, 503), ("x" * 256, 400), ("a b", 400), ("", 400)]
)
@pytest.mark.parametrize("header", ["Idempotency-Key", "X-Idempotency-Key"])
async def test_an_idempotency_key_is_visible_ascii_of_at_most_255(serve, header, key, status):
    """A good key gets as far as the database, which is down here."""
    served = await serve()
    answer = await served.http.post(
        "/api/bookings/create",
        json={"mock_exam_id": NOTHING},
        headers=served.as_student() | {header: key},
    )
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"]["details"]["field"] == header


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"student_id": "1599005"}, "email"),
        ({"email": "ada@example.org"}, "student_id"),
        ({"student_id": "1'5", "email": "ada@example.org"}, "student_id"),
        ({"student_id": "1599005", "email": "nowhere"}, "email"),
    ],
)
async def test_half_a_pair_is_refused(serve, body, field):
    """A student is named by both or not at all."""
    served = await serve()
    answer = await served.http.post(
        "/api/mock-exams/validate-credits",
        json=body | {"mock_type": "Mini-mock"},
        headers=served.as_student(),
    )
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field)


async def test_a_sign_in_takes_a_pair_or_a_code_never_both(serve):
    """Every mixture names the field that is wrong."""
    served = await serve(login_code=True)
    for body, field in (
        ({}, "student_id"),
        ({"student_id": "1599005"}, "email"),
        ({"challenge": "c"}, "code"),
        ({"code": "123456"}, "challenge"),
        ({"challenge": "c", "code": "1", "student_id": "1"}, "student_id"),
    ):
        answer = await served.http.post("/api/user/login", json=body)
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field)


def test_the_document_describes_every_route():
    """Path, method, security and success status of each."""
    for route in ROUTES:
        operation = DOCUMENT["paths"][route.path][route.method.lower()]
        assert bool(operation["security"]) == (route.access is not Access.PUBLIC)
        assert str(route.status) in operation["responses"]
        takes_a_body = route.body is not None or route.raw_body_limit_bytes is not None
        assert ("requestBody" in operation) == takes_a_body
    assert len({operation["operationId"] for _, _, operation in OPERATIONS}) == len(ROUTES)


def test_every_code_has_an_example_under_its_own_status():
    """The example is an envelope as the gate writes it."""
    for _, _, operation in OPERATIONS:
        for status, answer in operation["responses"].items():
            if status.startswith("2"):
                continue
            content = answer["content"]["application/json"]
            assert content["examples"]
            for code, example in content["examples"].items():
                assert example["value"]["error"]["code"] == code
                jsonschema.validate(example["value"], DOCUMENT["components"]["schemas"]["Failure"])
            assert ("Retry-After" in answer["headers"]) == (
                status in {"429", "503"} or "IN_PROGRESS" in str(content)
            )


def test_the_schemas_are_well_formed_and_every_reference_leads_somewhere():
    """JSON Schema 2020-12, as OpenAPI 3.1 asks."""
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for reference in re.findall(r"'\$ref': '#/([^']+)'", str(DOCUMENT)):
        found = DOCUMENT
        for part in reference.split("/"):
            found = found[part]


def test_idempotency_keys_are_documented_where_they_work():
    """Exactly the routes that change bookings or spend credits take one."""
    takes = {
        f"{method.upper()} {path}"
        for path, method, operation in OPERATIONS
        if {"$ref": "#/components/parameters/IdempotencyKey"} in operation["parameters"]
    }
    assert takes == {
        "POST /api/bookings/create",
        "POST /api/mock-discussions/create-booking",
        "POST /api/bookings/batch-cancel",
        "DELETE /api/bookings/{booking}",
        "POST /api/credits/charge",
        "POST /api/credits/holds",
        "POST /api/credits/holds/{hold}/capture",
        "POST /api/credits/holds/{hold}/release",
        "POST /api/credits/refund",
        "POST /api/bookings/{booking}/move",
    }


async def test_the_document_and_its_page_are_served(serve):
    """The page holds every address, and neither script nor anything from elsewhere."""
    served = await serve(public_docs=True)
    document = (await served.http.get("/openapi.json")).json()
    assert (document["openapi"], len(document["paths"])) == ("3.1.0", len(DOCUMENT["paths"]))
    page = await served.http.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for route in ROUTES:
        assert route.path in page.text
    assert "<script" not in page.text
    assert not re.search(r"(src|href)=\"?(https?:)?//", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_texts_of_the_document_cannot_break_the_page():
    """What stands in a summary is text, not markup."""
    route = ROUTES[0]
    document = openapi_document([route])
    operation = document["paths"][route.path][route.method.lower()]
    operation["summary"] = "<img src=x onerror=alert(1)>"
    assert b"<img" not in docs_page(document)
