"""What only the person who runs Tallybook can put right, told to those who call for work on the mirror."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import structlog

from tallybook.domain.errors import CrmUnavailable, SetupError

_RETRY_AFTER_S = 60
# Of HubSpot's own words only the log knows; these are ours.
_TOLD = frozenset(("hold", "status", "portal_id", "other_portal_id", "database_id", "other_database_id"))

_Brought = TypeVar("_Brought")
_log = structlog.get_logger(__name__)


async def tell_setup_errors(work: Awaitable[_Brought]) -> _Brought:
    """What the work brings. Raises CrmUnavailable that says what to do where it raises SetupError.

    Only for staff and schedulers: students hear no more than that it is not their fault.
    """
    try:
        return await work
    except SetupError as error:
        _log.warning("mirror_refused", problem=error.message)
        told = {name: value for name, value in error.details.items() if name in _TOLD}
        hint = {"hint": error.hint} if error.hint else {}
        raise CrmUnavailable(error.message, retry_after_s=_RETRY_AFTER_S, **hint, **told) from error
