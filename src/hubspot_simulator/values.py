"""Property values: text on the wire, checked against the property's type; instants as milliseconds."""

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

DAY_MS = 86_400_000
STRING_MAX = 65_536
ID_DIGITS_MAX = 18
# A little less than the years a date can have, both ways from 1970.
INSTANT_MAX_MS = 60_000_000_000_000
_EPOCH = date(1970, 1, 1)
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)")
_WHOLE = re.compile(r"-?[0-9]{1,17}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_EMAIL = re.compile(r"[^@\s;,]+@[^@\s;,]+\.[^@\s.;,]+")

Raw = str | int | float | bool | None


@lru_cache(maxsize=2048)
def _day_text(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()


def iso(at_ms: int) -> str:
    """HubSpot's way to write an instant: `2026-11-21T14:05:00.123Z`."""
    day, rest = divmod(at_ms, DAY_MS)
    seconds, ms = divmod(rest, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_day_text(day)}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"


def instant_ms(text: str) -> int | None:
    """Milliseconds for epoch milliseconds, a date (midnight UTC) or an ISO instant; None for other text."""
    if _WHOLE.fullmatch(text):
        return _bounded(int(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return _bounded(round(moment.timestamp() * 1000))


def _bounded(at_ms: int) -> int | None:
    return at_ms if abs(at_ms) <= INSTANT_MAX_MS else None


def whole_id(text: str) -> int | None:
    """The record id a text stands for; None when it is none: ASCII digits, as many as 64 bits hold."""
    return int(text) if len(text) <= ID_DIGITS_MAX and text.isascii() and text.isdigit() else None


def number(text: str) -> float | None:
    """The number a text stands for, None when it is none: digits with at most one decimal point."""
    return float(text) if _NUMBER.fullmatch(text) else None


def folded(text: str) -> str:
    """The text without surrounding space and in lower case; the same object where it is that already."""
    low = text.strip().lower()
    # A million index keys that are copies of a million values would cost as much as the values.
    return text if low == text else low


def as_text(raw: Raw) -> str:
    """JSON numbers and booleans become text as HubSpot stores them; null means cleared."""
    if raw is None:
        return ""
    if isinstance(raw, bool):
        return "true" if raw else "false"
    return str(raw)


class BadValueError(Exception):
    """A value its property cannot hold: HubSpot's code and sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _checked_date(text: str) -> str:
    if _DATE.fullmatch(text):
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            raise BadValueError("INVALID_DATE", f"{text} was not a valid date.") from None
    at_ms = instant_ms(text) if _WHOLE.fullmatch(text) else None
    if at_ms is not None:
        if at_ms % DAY_MS:
            raise BadValueError("INVALID_DATE", f"{text} is at {iso(at_ms)}, not midnight!")
        return _day_text(at_ms // DAY_MS)
    raise BadValueError("INVALID_DATE", f"{text} was not a valid date.")


def _checked_instant(text: str) -> str:
    at_ms = instant_ms(text)
    if at_ms is None:
        raise BadValueError("INVALID_LONG", f"{text} was not a valid long.")
    return iso(at_ms)


def _checked_option(
    text: str, options: tuple[str, ...], *, several: bool, old: str | None, code: str = "INVALID_OPTION"
) -> str:
    chosen = [part for part in text.split(";") if part] if several else [text]
    for one in chosen:
        if one not in options:
            known = ", ".join(options)
            raise BadValueError(code, f"{one} was not one of the allowed options: [{known}]")
    if several and text.startswith(";"):
        chosen = [*(old.split(";") if old else []), *chosen]
    return ";".join(dict.fromkeys(chosen)) if several else text


def checked(text: str, *, kind: str, field: str, options: tuple[str, ...], old: str | None) -> str:
    """The value as it is stored for a property of this type; BadValueError when it cannot be."""
    if kind != "string" and text != text.strip():
        sentence = f'"{text}" includes leading or trailing whitespace.'
        raise BadValueError("LEADING_TRAILING_WHITESPACE", sentence)
    if kind == "number" and number(text) is None:
        raise BadValueError("INVALID_DOUBLE", f"{text} was not a valid number.")
    if kind == "date":
        return _checked_date(text)
    if kind == "datetime":
        return _checked_instant(text)
    if kind == "bool":
        return _checked_option(
            text.lower(), ("true", "false"), several=False, old=old, code="INVALID_BOOLEAN"
        )
    if kind == "enumeration":
        return _checked_option(text, options, several=field == "checkbox", old=old)
    if len(text) > STRING_MAX:
        raise BadValueError("INVALID_STRING", f"The value is longer than {STRING_MAX} characters.")
    return text


def checked_email(text: str) -> str:
    """The e-mail as HubSpot stores it: lower case; BadValueError when it is none."""
    email = text.strip().lower()
    if not _EMAIL.fullmatch(email):
        raise BadValueError("INVALID_EMAIL", f"Email address {text} is invalid")
    return email
