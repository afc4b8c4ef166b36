"""The API against its own OpenAPI document: whatever is sent, the answer is one the document describes."""

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from e2e.service import CRON_SECRET
from support.factories import make_mock_exam
from tallybook.api.openapi import openapi_document
from tallybook.api.routes import ROUTES

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    missing_required_header,
    unsupported_method,
]
EXAMPLES = 15
DOCUMENT = openapi_document(ROUTES)
schema = schemathesis.openapi.from_dict(DOCUMENT)
schema.config.generation.update(deterministic=True)

BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
async def service(start_service):
    return await start_service(
        contacts=20,
        TALLYBOOK_DOCS="public",
        TALLYBOOK_PUBLIC_URL="https://credits.example",
        HUBSPOT_CLIENT_SECRET="a secret of HubSpot's",
        STRIPE_WEBHOOK_SECRET="whsec_of_stripe",
    )


@pytest.fixture(scope="module")
async def exam(service):
    return str(
        (await make_mock_exam(service.db, mock_type="Mock Discussion", location="Online", capacity=900)).id
    )


@pytest.fixture
async def headers(service):
    """A student of the test's own, since a person may call 120 times a minute."""
    return (await service.student(credits={"mock_discussion_token": 50})).headers


async def test_the_server_serves_the_document_its_routes_make(service):
    """And it is an OpenAPI 3.1 document."""
    served = (await service.http.get("/openapi.json")).json()
    assert served == DOCUMENT
    assert served["openapi"].startswith("3.1.")
    schema.validate()
    for each in served["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(each)


def call(case, service, headers, exam, *, checks=CHECKS):
    named = case.body.get("mock_exam_id") if isinstance(case.body, dict) else None
    if isinstance(named, str) and 1 <= len(named) <= 64:
        # Otherwise nearly every booking would end at a session that does not exist.
        case.body["mock_exam_id"] = exam
    return case.call_and_validate(base_url=service.server.url, headers=headers, checks=checks, timeout=20)


@schema.exclude(tag=["cron", "operations", "mirror"]).parametrize()
@BOUNDED
def test_whatever_a_student_sends_is_answered_as_documented(case, service, headers, exam):
    """Status, type, headers and shape of every answer; what breaks the schema is refused."""
    call(case, service, headers, exam)


@schema.include(tag=["bookings", "credits", "sign-in"]).parametrize()
@BOUNDED
def test_whatever_an_application_sends_is_answered_as_documented(case, service, exam):
    """It names a student in each request, mostly one who does not exist."""
    call(case, service, service.as_app, exam)


@schema.include(tag="mirror").parametrize()
@BOUNDED
def test_whatever_staff_send_is_answered_as_documented(case, service, staff, exam):
    """An administrator, who may do everything: most conflicts and letters named do not exist."""
    call(case, service, staff, exam)


@schema.include(tag="cron").parametrize()
@settings(BOUNDED, max_examples=4)
def test_whatever_the_scheduler_sends_is_answered_as_documented(case, service, exam):
    """Each run reports what it did."""
    call(case, service, {"authorization": f"Bearer {CRON_SECRET}"}, exam)


@schema.include(tag="operations").parametrize()
@settings(BOUNDED, max_examples=4)
def test_health_figures_and_docs_are_answered_as_documented(case, service, exam):
    """They take nothing; here the docs are public and the figures asked from this machine."""
    checks = [each for each in CHECKS if each not in (missing_required_header, negative_data_rejection)]
    call(case, service, {}, exam, checks=checks)
