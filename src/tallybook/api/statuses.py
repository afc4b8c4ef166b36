"""The one table from an error to its HTTP status, and how long to wait before trying again.

A class without a row takes the row of its nearest ancestor, so a new refusal needs one only when it differs.
"""

from __future__ import annotations

from tallybook.domain import errors

STATUS: dict[type[errors.TallybookError], int] = {
    errors.TallybookError: 500,
    errors.Refusal: 400,
    errors.ValidationError: 400,
    errors.Unauthenticated: 401,
    errors.InsufficientCredits: 402,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.Conflict: 409,
    errors.PayloadTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.IdempotencyKeyReused: 422,
    errors.RateLimited: 429,
    errors.Unavailable: 503,
}

_RETRY_AFTER_S: dict[type[errors.TallybookError], int] = {
    errors.IdempotencyInProgress: 1,
    errors.RateLimited: 10,
}


def status_of(error: type[errors.TallybookError]) -> int:
    """The HTTP status of an error class."""
    return next(STATUS[ancestor] for ancestor in error.__mro__ if ancestor in STATUS)


def retry_after_s(error: errors.TallybookError) -> int | None:
    """Seconds after which the same request may succeed; None where waiting does not help."""
    if isinstance(error, errors.Unavailable):
        return max(1, error.retry_after_s)
    for kind, default_s in _RETRY_AFTER_S.items():
        if isinstance(error, kind):
            wanted = error.details.get("retry_after_s", default_s)
            return max(1, round(wanted)) if isinstance(wanted, int | float) else default_s
    return None
