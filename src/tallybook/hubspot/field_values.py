"""Single property values: HubSpot sends every one as text, and people type what they like."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from tallybook.domain.clock import FIRST_YEAR, LAST_YEAR

_WHOLE = re.compile(r"0*([0-9]{1,15})(?:\.0*)?", re.ASCII)
_MILLISECONDS = re.compile(r"-?[0-9]{9,14}", re.ASCII)
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::[0-5][0-9](?:\.[0-9]+)?)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# PostgreSQL's text cannot hold NUL, UTF-8 no lone surrogate; line ends and tabs in a name are slips.
_UNSTORABLE = re.compile("[\0-\x1f\x7f\ud800-\udfff]+")


def clean(text: str | None) -> str | None:
    """The text on one line, without what cannot be stored; None for nothing."""
    return _UNSTORABLE.sub(" ", text or "").strip() or None


def whole_number(text: str | None, *, most: int) -> int | None:
    """A whole number from 0 to `most`; `3.0` is 3, nothing is 0. None when the text is anything else."""
    stripped = (text or "").strip()
    if not stripped:
        return 0
    found = _WHOLE.fullmatch(stripped)
    return int(found[1]) if found and int(found[1]) <= most else None


def instant(text: str | None) -> datetime | None:
    """An instant written in ISO 8601 (UTC when it names no zone) or in milliseconds since 1970, else None."""
    stripped = (text or "").strip()
    if _MILLISECONDS.fullmatch(stripped):
        found = _EPOCH + timedelta(milliseconds=int(stripped))
    else:
        try:
            found = datetime.fromisoformat(stripped)
        except ValueError:
            return None
    if not FIRST_YEAR <= found.year <= LAST_YEAR:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def day(text: str | None) -> date | None:
    """A date written YYYY-MM-DD, or as an instant of which HubSpot means the date in UTC; None otherwise."""
    found = instant(text)
    return found.date() if found else None


def clock_time(text: str | None, zone: str) -> tuple[time, date | None] | None:
    """The time a clock in the zone shows, to the minute, and the local date where the text is an instant.

    Read are an instant, as the old system wrote them, and HH:MM, as people do. None otherwise.
    """
    stripped = (text or "").strip()
    if found := _CLOCK.fullmatch(stripped):
        return time(int(found[1]), int(found[2])), None
    at = instant(stripped)
    if at is None:
        return None
    local = at.astimezone(ZoneInfo(zone))
    return local.time().replace(second=0, microsecond=0, fold=0), local.date()


def truth(text: str | None) -> bool | None:
    """Whether the text says yes; None when it says neither yes nor no."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return words.get((text or "").strip().lower())
