"""Stops a lane when something is wrong that no single record can help, for as long as it may take."""

from __future__ import annotations

import random
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from tallybook.domain.errors import CrmBusy, SetupError, TallybookError, Unavailable
from tallybook.domain.mirror import MirroredType
from tallybook.hubspot.portal_shape import forget_shape
from tallybook.hubspot.write_results import Fault, Refusal, Unknown
from tallybook.usecases.mirror import Mirror

# First pause and longest pause in seconds. What a person has to change is looked at now and then.
_PAUSES = {
    Fault.LIMIT: (10.0, 60.0),
    Fault.UNAUTHORISED: (10.0, 300.0),
    Fault.FORBIDDEN: (10.0, 300.0),
    Fault.UNKNOWN_PROPERTY: (10.0, 300.0),
    Fault.READ_ONLY_PROPERTY: (1.0, 60.0),
    Fault.SETUP: (10.0, 300.0),
    Fault.UNREACHABLE: (1.0, 60.0),
    Fault.MIGRATING: (300.0, 3600.0),
}
_UNAVAILABLE = "unavailable"


async def pause_lane(mirror: Mirror, lane: MirroredType, why: Refusal | Unknown, *, time_zone: str) -> str:
    """Pauses the lane, alerts, and gives the reason. `time_zone` is the portal's."""
    # Whatever was learned of the portal may be why: a property that was deleted, a token of another account.
    forget_shape(mirror.client, lane)
    if isinstance(why, Unknown):
        reason, (wait_s, most_s) = _UNAVAILABLE, _PAUSES[Fault.UNREACHABLE]
    elif why.fault is Fault.DAILY_LIMIT:
        reason, wait_s = why.fault.value, seconds_to_midnight(datetime.now(UTC), time_zone)
        most_s = wait_s
    else:
        reason, (wait_s, most_s) = why.fault.value, _PAUSES[why.fault]
        if why.wait_s is not None:
            wait_s, most_s = why.wait_s, max(why.wait_s, most_s if why.fault is Fault.LIMIT else 0.0)
    params = {"lane": lane.value, "reason": reason, "words": why.words, "wait_s": wait_s, "most_s": most_s}
    await mirror.db.fetch_all("pause_lane", params)
    return reason


def why_unreadable(error: TallybookError) -> Refusal | Unknown:
    """What a call that only reads failed with, as the reason why a lane has to stop."""
    words = str(error.details.get("hubspot_message") or error.message)
    status = error.details.get("status")
    if isinstance(error, CrmBusy):
        if status is None:
            return Refusal(Fault.BUSY, words, float(error.retry_after_s))
        daily = error.details.get("policy") == "DAILY"
        return Refusal(Fault.DAILY_LIMIT if daily else Fault.LIMIT, words, float(error.retry_after_s))
    if isinstance(error, SetupError):
        return Refusal({401: Fault.UNAUTHORISED, 403: Fault.FORBIDDEN}.get(status or 0, Fault.SETUP), words)
    if status == 477 and isinstance(error, Unavailable):
        return Refusal(Fault.MIGRATING, words, float(error.retry_after_s))
    return Unknown(words)


def seconds_to_midnight(now: datetime, time_zone: str) -> float:
    """Until the portal's day of calls is over, and up to a minute more: not everybody begins at once."""
    zone = ZoneInfo(time_zone)
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    midnight = datetime.combine(tomorrow, time(), zone)
    return (midnight - now).total_seconds() + 60 * random.random()  # noqa: S311 - spreads load, no secret.
