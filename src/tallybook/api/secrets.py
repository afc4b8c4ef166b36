"""Keys for one purpose each, derived from TALLYBOOK_SECRET_KEY: no signature passes as another kind."""

from __future__ import annotations

import hmac
from hashlib import sha256

STUDENT_TOKENS = "student tokens"
STAFF_TOKENS = "staff tokens"
API_KEYS = "api keys"


def derive_key(secret_key: str, *, purpose: str) -> bytes:
    """32 bytes for this purpose alone."""
    return hmac.digest(secret_key.encode(), f"tallybook: {purpose}".encode(), sha256)


def hash_api_secret(secret_key: str, *, key_id: str, secret: str) -> bytes:
    """What is stored of an API key: worthless without TALLYBOOK_SECRET_KEY, and bound to the key's id."""
    return hmac.digest(derive_key(secret_key, purpose=API_KEYS), f"{key_id}_{secret}".encode(), sha256)
