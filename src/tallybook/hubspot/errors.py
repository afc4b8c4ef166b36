"""HubSpot's refusals and failures as ours.

What can pass by itself is CrmBusy or CrmUnavailable with a time to wait; what a person has to change is
SetupError. HubSpot's own words go into `details` for logs and operators, with the token struck out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tallybook.domain.errors import CrmBusy, CrmUnavailable, SetupError, TallybookError

_WAIT_S = {"SECONDLY": 1, "TEN_SECONDLY_ROLLING": 10, "DAILY": 900}
_PASSING = frozenset((423, 477, 500, 502, 503, 504, 520, 521, 522, 523, 524))
_LONGEST_WORDS = 500


class Problem(msgspec.Struct):
    """One of the things HubSpot found wrong with a request."""

    message: str | None = None
    code: str | None = None
    context: dict[str, Any] = {}


class ErrorBody(msgspec.Struct, rename="camel"):
    """HubSpot's error body, and each error of a batch's answer; every field is optional by its documents."""

    message: str | None = None
    category: str | None = None
    policy_name: str | None = None
    correlation_id: str | None = None
    context: dict[str, Any] = {}
    errors: list[Problem] = []


def is_passing(status: int) -> bool:
    """Whether the same call may succeed a moment later, its own limits (429) included."""
    return status == 429 or status in _PASSING


def error_of(
    status: int, *, body: bytes, headers: Mapping[str, str], operation: str, token: str
) -> TallybookError:
    """The error to raise for an answer that is no success."""
    said = parse_error(body)
    words = spoken(said, token=token)
    details: dict[str, Any] = {
        "operation": operation,
        "status": status,
        "hubspot_message": words,
        "correlation_id": said.correlation_id,
    }
    if status == 429:
        return CrmBusy(
            retry_after_s=retry_after_s(headers) or _WAIT_S.get(said.policy_name or "", 2),
            policy=said.policy_name,
            **details,
        )
    if status == 401:
        return SetupError(
            "HS_PRIVATE_APP_TOKEN was refused by HubSpot (401).",
            hint="Set it to the token of your app or service key, then check with: tallybook doctor",
            **details,
        )
    if status == 403:
        return SetupError(
            f"The HubSpot token may not {operation} (403){_missing_scopes(said)}.",
            hint="Give the app or service key this scope in HubSpot; check with: tallybook doctor",
            **details,
        )
    if status in (404, 405) or 300 <= status < 400:
        return SetupError(
            f"HubSpot knows no such address for: {operation} ({status}).",
            hint="Check HUBSPOT_BASE_URL, HUBSPOT_MOCK_EXAMS_OBJECT and HUBSPOT_BOOKINGS_OBJECT.",
            **details,
        )
    return CrmUnavailable(retry_after_s=retry_after_s(headers), **details)


def spoken(said: ErrorBody, *, token: str) -> str:
    """HubSpot's own words, cut to a length to keep, the token struck out."""
    words = said.message or ""
    return (words.replace(token, "***") if token else words)[:_LONGEST_WORDS]


def parse_error(body: bytes) -> ErrorBody:
    """What an error's body says; a gateway's page becomes the message."""
    try:
        return msgspec.json.decode(body, type=ErrorBody)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        return ErrorBody(message=body[:200].decode("utf-8", "replace"))


def retry_after_s(headers: Mapping[str, str]) -> int | None:
    """How long HubSpot asks to wait, a day at most."""
    text = headers.get("retry-after", "")
    return max(1, min(int(text), 86_400)) if text.isascii() and text.isdigit() else None


def _missing_scopes(said: ErrorBody) -> str:
    scopes: list[str] = []
    for problem in said.errors:
        for key in ("requiredGranularScopes", "requiredScopes"):
            scopes += [str(scope) for scope in problem.context.get(key, [])]
    return f": it lacks {' or '.join(dict.fromkeys(scopes))}" if scopes else ""
