"""What goes back over the wire: bytes joined around the JSON that PostgreSQL made, never parsed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from tallybook.api.statuses import retry_after_s, status_of
from tallybook.domain.errors import MethodNotAllowed, TallybookError, Unauthenticated

Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
_REPLAYED: Header = (b"idempotency-replayed", b"true")
BEARER = b'Bearer realm="tallybook"'
_ENCODER = msgspec.json.Encoder(enc_hook=str)


@dataclass(slots=True)
class Reply:
    """A whole answer. `lookup` (hit or miss) and `contact_id` are for the log line and the metrics only."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = (JSON,)
    lookup: str | None = None
    contact_id: UUID | str | None = None


def success(
    data: bytes,
    *,
    status: int = 200,
    replayed: bool = False,
    message: str | None = None,
    lookup: str | None = None,
    contact_id: UUID | str | None = None,
) -> Reply:
    """The success envelope around `data`, which is JSON already."""
    if message is None:
        body = b'{"success":true,"data":' + data + b"}"
    else:
        body = b'{"success":true,"data":' + data + b',"message":' + _ENCODER.encode(message) + b"}"
    return Reply(status, body, (JSON, _REPLAYED) if replayed else (JSON,), lookup, contact_id)


def success_of(data: Any, *, status: int = 200, message: str | None = None) -> Reply:
    """The success envelope around anything msgspec can write."""
    return success(_ENCODER.encode(data), status=status, message=message)


def failure(error: TallybookError, *, request_id: str, challenge: bytes = BEARER) -> Reply:
    """The failure envelope. What only the operator may know (status 500) is told in the log, not here.

    `challenge` names the way to sign in, for status 401.
    """
    status = status_of(type(error))
    shown = TallybookError() if status == 500 else error
    body = _ENCODER.encode(
        {
            "success": False,
            "error": {"code": shown.code, "message": shown.message, "details": dict(shown.details)},
            "request_id": request_id,
        }
    )
    headers = [JSON]
    wait_s = retry_after_s(error)
    if wait_s is not None:
        headers.append((b"retry-after", str(wait_s).encode()))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", challenge))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.details.get("allowed", ())).encode()))
    # Status 413 does not close the connection: closing with bytes unread resets it, and a client that is
    # still sending would never see the answer. uvicorn drops the rest as it comes.
    return Reply(status, body, tuple(headers))
