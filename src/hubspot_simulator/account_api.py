"""Account information."""

from datetime import datetime
from zoneinfo import ZoneInfo

from hubspot_simulator.calls import Answer, Call
from hubspot_simulator.portal import Portal
from hubspot_simulator.values import iso


def account_details(portal: Portal, call: Call) -> Answer:  # noqa: ARG001 - every handler takes both.
    """The portal's id and time zone."""
    offset = datetime.now(ZoneInfo(portal.settings.time_zone)).utcoffset()
    seconds = int(offset.total_seconds()) if offset else 0
    sign, minutes = "-" if seconds < 0 else "+", abs(seconds) // 60
    details = {
        "portalId": portal.settings.portal_id,
        "accountType": "STANDARD",
        "timeZone": portal.settings.time_zone,
        "companyCurrency": "CAD",
        "additionalCurrencies": [],
        "utcOffset": f"{sign}{minutes // 60:02}:{minutes % 60:02}",
        "utcOffsetMilliseconds": seconds * 1000,
        "uiDomain": "app.hubspot.com",
        "dataHostingLocation": "na1",
    }
    return Answer(200, details)


def account_usage(portal: Portal, call: Call) -> Answer:
    """How many calls the account has made today."""
    usage = {
        "name": "private-apps-api-calls-daily",
        "usageLimit": portal.limits.daily,
        "currentUsage": portal.limiter.used_today,
        "collectedAt": iso(call.at_ms),
        "fetchStatus": "SUCCESS",
    }
    return Answer(200, {"results": [usage]})
