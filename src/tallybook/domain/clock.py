"""Local dates and times of a place, and the one instant they mean."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from functools import lru_cache
from zoneinfo import ZoneInfo

from tallybook.domain.errors import ValidationError

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::00)?", re.ASCII)
FIRST_YEAR, LAST_YEAR = 1900, 2200


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """The time zone of an IANA name such as America/Toronto. Raises ValidationError for any other text."""
    # "localtime" would mean something else on every machine.
    known = bool(re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", name)) and name != "localtime"
    try:
        if known:
            return ZoneInfo(name)
    except (
        KeyError,
        ValueError,
        OSError,
    ):  # A folder or a file that is no zone raises OSError or ValueError.
        pass
    raise ValidationError(f"There is no time zone {name!r}.", field="time_zone", problem="unknown time zone")


def parse_date(text: str, *, field: str) -> date:
    """A date written YYYY-MM-DD that exists. Raises ValidationError naming `field`."""
    if _DATE.fullmatch(text):
        try:
            found = date.fromisoformat(text)
        except ValueError:
            pass
        else:
            if FIRST_YEAR <= found.year <= LAST_YEAR:
                return found
    raise ValidationError(
        f"{field} must be a date that exists, written YYYY-MM-DD.", field=field, problem="no such date"
    )


def parse_time(text: str, *, field: str) -> time:
    """A time of day written HH:MM. Raises ValidationError naming `field`."""
    if found := _TIME.fullmatch(text):
        return time(int(found[1]), int(found[2]))
    raise ValidationError(
        f"{field} must be a time of day, written HH:MM.", field=field, problem="no such time of day"
    )


def local_instant(on: date, at: time, zone: str, *, field: str = "start_time") -> datetime:
    """The instant, in UTC, of a local date and time in a zone.

    Raises ValidationError when daylight saving skips the local time or gives it twice: nobody can know which
    instant was meant.
    """
    place = zone_of(zone)
    if not FIRST_YEAR <= on.year <= LAST_YEAR:
        raise ValidationError(f"The year of {on} is out of range.", field=field, problem="year out of range")
    local = datetime.combine(on, at.replace(tzinfo=None, fold=0))
    first, second = (local.replace(tzinfo=place, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return first
    exists = first.astimezone(place).replace(tzinfo=None) == local
    problem = "happens twice" if exists else "does not exist"
    raise ValidationError(
        f"{local:%Y-%m-%d %H:%M} {problem} in {zone}: the clocks change then. Choose another time.",
        field=field,
        problem=f"local time {problem}",
    )


def local_date_and_time(instant: datetime, zone: str) -> tuple[date, time]:
    """The date and time a clock at the place shows at this instant."""
    local = instant.astimezone(zone_of(zone))
    return local.date(), local.time()


def local_date(instant: datetime, zone: str) -> date:
    """The date at the place at this instant."""
    return local_date_and_time(instant, zone)[0]
