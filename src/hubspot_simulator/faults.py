"""Faults the back door asks for: the next matching calls fail in the way it says."""

import re
from typing import Any

import msgspec

from hubspot_simulator.errors import ApiError, locked, migrating, missing_scopes, rate_limited, unauthorised


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """What happens to the next `times` calls whose path matches.

    `status` answers that status (None: the normal answer); with `apply_first` the call takes effect all the
    same. `delay_ms` waits before the answer, `cut` closes the connection instead of answering, `cut_after`
    closes it after so many bytes of the answer's body, `late_apply_ms` lets the call take effect that long
    after it came in. `headers` and `body` replace the made-up ones; a `body` that is text is sent as it is.
    """

    path: str
    status: int | None = None
    times: int = 1
    apply_first: bool = False
    delay_ms: float = 0.0
    late_apply_ms: float = 0.0
    cut: bool = False
    method: str | None = None
    headers: dict[str, str] = {}
    body: Any = None
    cut_after: int | None = None

    def fits(self, method: str, path: str) -> bool:
        """Whether this fault is for that call."""
        return self.times > 0 and self.method in {None, method} and re.search(self.path, path) is not None


_WORDS = {
    500: ("INTERNAL_ERROR", "internal error"),
    502: ("BAD_GATEWAY", "Bad gateway"),
    503: ("SERVICE_UNAVAILABLE", "Service unavailable"),
    504: ("GATEWAY_TIMEOUT", "Gateway timeout"),
}
# How long HubSpot says at most that an account moves.
MIGRATION_S = 86_400


def refusal(status: int, request_id: str) -> ApiError:
    """The refusal HubSpot would answer with that status."""
    match status:
        case 401:
            return unauthorised()
        case 403:
            return missing_scopes(["crm.objects.contacts.read"])
        case 423:
            return locked()
        case 429:
            return rate_limited("TEN_SECONDLY_ROLLING", request_id)
        case 477:
            return migrating(MIGRATION_S)
        case _:
            category, message = _WORDS.get(status, ("VALIDATION_ERROR", "A fault was asked for."))
            return ApiError(status, message, category=category)


class Faults:
    """The faults in waiting, first come first served."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Arm a fault; re.error when its path is no regular expression."""
        re.compile(fault.path)
        self._waiting.append(fault)

    def clear(self) -> None:
        """Disarm all."""
        self._waiting.clear()

    def waiting(self) -> list[Fault]:
        """Those still armed."""
        return self._waiting

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that hits this call, counted down."""
        for one in self._waiting:
            if one.fits(method, path):
                one.times -= 1
                if one.times <= 0:
                    self._waiting.remove(one)
                return one
        return None
