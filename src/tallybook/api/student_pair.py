"""Who a student address is about, and the idempotency key of a request."""

from __future__ import annotations

import re
from hashlib import sha256

import msgspec

from tallybook.api.problems import invalid
from tallybook.api.requests import Paired
from tallybook.api.route import Call
from tallybook.domain.callers import CallerKind
from tallybook.domain.contacts import Pair
from tallybook.domain.errors import Unauthenticated
from tallybook.usecases.idempotency import Idempotency

_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_canonical = msgspec.json.Encoder(order="sorted").encode


def pair_of(call: Call) -> Pair | None:
    """The student named in the body or the query; None when a signed-in student names nobody.

    Raises ValidationError for half a pair and when an application names nobody, Unauthenticated in pair mode.
    """
    named: Paired = call.body if isinstance(call.body, Paired) else call.query
    student_id, email = named.student_id, named.email
    if student_id is not None and email is not None:
        return Pair.parse(student_id, email)
    kind = call.caller.kind
    if student_id is None and email is None:
        if kind is CallerKind.STUDENT:
            return None
        if kind is CallerKind.PAIR:
            raise Unauthenticated("Sign in, or send student_id and email.")
    missing = "student_id" if student_id is None else "email"
    raise invalid(missing, "is required: a student is named by student_id and email together")


def idempotency_of(call: Call) -> Idempotency | None:
    """The key the client sent, bound to exactly this request. Raises ValidationError."""
    headers = call.headers
    name = b"idempotency-key" if b"idempotency-key" in headers else b"x-idempotency-key"
    in_body = getattr(call.body, "idempotency_key", None)
    key = headers.get(name, in_body.encode() if in_body is not None else None)
    if key is None:
        return None
    if in_body is not None and key != in_body.encode():
        raise invalid("idempotency_key", f"differs from the header {name.decode().title()}")
    if not _KEY.fullmatch(key):
        raise invalid(name.decode().title(), "must have 1 to 255 visible ASCII characters")
    method = call.scope["method"]
    request = b"\n".join((method.encode(), call.scope["path"].encode(), _canonical(call.body)))
    return Idempotency(
        key=key.decode(), route=f"{method} {call.route.path}", fingerprint=sha256(request).digest()
    )
