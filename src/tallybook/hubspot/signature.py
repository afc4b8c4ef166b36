"""Whether a request is from HubSpot: its signature, version 3.

developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from datetime import datetime
from hashlib import sha256

SIGNATURE_HEADER = b"x-hubspot-signature-v3"
TIMESTAMP_HEADER = b"x-hubspot-request-timestamp"

_TOLERANCE_MS = 300_000
_TIMESTAMP = re.compile(rb"[0-9]{1,15}")
# HubSpot signs the address with these decoded; a question mark that begins the query is no %3F.
_DECODED = re.compile("%(3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)


def sign(secret: str, *, method: str, url: str, body: bytes, timestamp: bytes) -> bytes:
    """The signature of a request to `url`, the whole public address as it was given to HubSpot."""
    decoded = _DECODED.sub(lambda code: chr(int(code[1], 16)), url)
    text = method.encode() + decoded.encode() + body + timestamp
    return b64encode(hmac.digest(secret.encode(), text, sha256))


def is_signed(
    secret: str,
    *,
    method: str,
    url: str,
    body: bytes,
    signature: bytes | None,
    timestamp: bytes | None,
    now: datetime,
) -> bool:
    """Whether the signature is HubSpot's and at most five minutes old, or ahead of our clock."""
    if not secret or signature is None or timestamp is None or not _TIMESTAMP.fullmatch(timestamp):
        return False
    # Also the future is refused: whoever got hold of one such request could keep it for as long.
    if abs(now.timestamp() * 1000 - int(timestamp)) > _TOLERANCE_MS:
        return False
    expected = sign(secret, method=method, url=url, body=body, timestamp=timestamp)
    return hmac.compare_digest(expected, signature)
