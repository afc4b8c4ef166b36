"""Every error has one status, and it is the one the contract names."""

import pytest

from tallybook.api.replies import failure
from tallybook.api.statuses import retry_after_s, status_of
from tallybook.domain import errors
from tallybook.domain.errors import TallybookError

CONTRACT = {
    400: "VALIDATION_ERROR INVALID_MOCK_TYPE",
    401: "UNAUTHENTICATED LOGIN_FAILED",
    402: "INSUFFICIENT_CREDITS",
    403: "FORBIDDEN CSRF_FAILED",
    404: "STUDENT_NOT_FOUND CONTACT_NOT_FOUND EXAM_NOT_FOUND BOOKING_NOT_FOUND ACTION_NOT_FOUND "
    "HOLD_NOT_FOUND ENTRY_NOT_FOUND NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "EXAM_FULL DUPLICATE_BOOKING TIME_CONFLICT EXAM_NOT_ACTIVE EXAM_IN_PAST BOOKING_CLOSED "
    "PREREQUISITE_NOT_MET CANCELLATION_CLOSED BOOKING_NOT_LIVE MOCK_TYPE_MISMATCH CAPACITY_BELOW_BOOKED "
    "HAS_BOOKINGS BALANCE_TOO_LOW ALREADY_REFUNDED AMBIGUOUS_CONTACT CONFIRMATION_STALE APPROVAL_NEEDED "
    "HOLD_CLOSED IDEMPOTENCY_IN_PROGRESS",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "IDEMPOTENCY_KEY_REUSED",
    429: "RATE_LIMITED",
    500: "INTERNAL_ERROR",
    503: "CRM_BUSY CRM_UNAVAILABLE DATABASE_UNAVAILABLE LOCK_TIMEOUT",
}
STATUS_OF_CODE = {code: status for status, codes in CONTRACT.items() for code in codes.split()}
# Ancestors that are never raised as themselves, and what the operator alone is told.
NOT_IN_CONTRACT = {"REFUSED", "CONFLICT", "UNAVAILABLE", "SETUP_ERROR"}


def every_class(root: type[TallybookError] = TallybookError) -> list[type[TallybookError]]:
    found = [root]
    for child in root.__subclasses__():
        found += every_class(child)
    return [kind for kind in found if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_every_error_class_has_the_status_of_its_code(kind):
    """No class of the tree is left to chance, and no code leaves its row of the contract."""
    assert kind.code in STATUS_OF_CODE or kind.code in NOT_IN_CONTRACT
    if kind.code in STATUS_OF_CODE:
        assert status_of(kind) == STATUS_OF_CODE[kind.code]


def test_every_code_of_the_contract_has_a_class():
    """The contract promises nothing that nobody can raise."""
    assert {kind.code for kind in every_class()} >= set(STATUS_OF_CODE)


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_waiting_is_advised_exactly_where_it_helps(kind):
    """429, 503 and a request still running carry Retry-After; nothing else does."""
    helps = status_of(kind) in {429, 503} or kind is errors.IdempotencyInProgress
    assert (retry_after_s(kind()) is not None) == helps
    headers = dict(failure(kind(), request_id="r").headers)
    assert (b"retry-after" in headers) == helps


def test_what_only_the_operator_may_know_is_not_answered():
    """A setup error is 500 INTERNAL_ERROR without its text."""
    reply = failure(errors.SetupError("HS_PRIVATE_APP_TOKEN is wrong", hint="set it"), request_id="r")
    assert reply.status == 500
    assert b"INTERNAL_ERROR" in reply.body
    assert b"HS_PRIVATE" not in reply.body


def test_a_stated_wait_is_passed_on():
    """The seconds an error carries win over the default."""
    assert retry_after_s(errors.CrmBusy(retry_after_s=7)) == 7
    assert retry_after_s(errors.RateLimited(retry_after_s=33)) == 33
