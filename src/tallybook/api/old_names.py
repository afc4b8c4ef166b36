"""What the old front end still reads: answers in pair mode carry its names beside ours."""

from __future__ import annotations

from typing import Any

import msgspec

_OLD_NAMES_OF_A_SEAT = {
    "examType": "mock_type",
    "examDate": "exam_date",
    "startTime": "start_time",
    "endTime": "end_time",
    "tokenUsed": "token_used",
    "creditsAfterDeduction": "credits_after",
}

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


def of_a_check(data: bytes) -> bytes:
    """A credit check with the field that was always null."""
    return b'{"enrollment_id":null,' + data.lstrip()[1:]


def of_a_discussion_check(data: bytes) -> bytes:
    """A credit check for a discussion, which counted its tokens under a name of their own."""
    answer = _decode(data)
    breakdown = answer.get("credit_breakdown", {})
    answer["credit_breakdown"] = breakdown | {"discussion_tokens": breakdown.get("specific_credits")}
    answer["enrollment_id"] = None
    return _encode(answer)


def of_a_seat(data: bytes) -> bytes:
    """A booking with the camelCase names of the old confirmation page."""
    answer = _decode(data)
    return _encode(answer | {old: answer[new] for old, new in _OLD_NAMES_OF_A_SEAT.items() if new in answer})
