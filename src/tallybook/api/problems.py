"""msgspec's findings as words for a person: which field, and what is wrong with it."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tallybook.domain.errors import ValidationError

_WHERE = re.compile(r"(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<where>[^`]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_LENGTH = re.compile(r"Expected `(str|array)` of length (<=|>=) (\d+)")
_BOUND = re.compile(r"Expected `(?:int|float)` (<=|>=|<|>) (-?[\d.]+)")
_TYPE_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_BOUND_WORDS = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}
_LONGEST_ECHO = 80


def invalid(field: str, problem: str) -> ValidationError:
    """The refusal of one field. `field` comes from the caller and is shortened."""
    field = field[:_LONGEST_ECHO]
    return ValidationError(f"The request is not valid: {field} {problem}.", field=field, problem=problem)


def explain(error: msgspec.ValidationError, struct: type[msgspec.Struct], *, whole: str) -> ValidationError:
    """The refusal that says what msgspec found; `whole` names the thing itself, e.g. "body"."""
    found = _WHERE.fullmatch(str(error))
    what, where = (found["what"], found["where"] or "") if found else (str(error), "")
    named = _FIELD.fullmatch(what)
    if named:
        field = f"{where}.{named[2]}" if where else named[2]
        return invalid(
            field, "is required" if named[1] == "missing required" else "is not a field of this request"
        )
    return invalid(where or whole, _problem(what, where, struct))


def _problem(what: str, where: str, struct: type[msgspec.Struct]) -> str:
    if what.startswith("Invalid enum value"):
        return f"must be one of: {', '.join(_choices(struct, where))}"
    if what.startswith("Invalid RFC3339 encoded date"):
        return "must be a date that exists, written YYYY-MM-DD"
    if length := _LENGTH.match(what):
        unit = "characters" if length[1] == "str" else "items"
        return f"must have {_BOUND_WORDS[length[2]]} {length[3]} {unit}"
    if bound := _BOUND.match(what):
        return f"must be {_BOUND_WORDS[bound[1]]} {bound[2]}"
    if types := _TYPE.match(what):
        wanted = [_TYPE_WORDS.get(name.strip(), name.strip()) for name in types[1].split("|")]
        wanted = [name for name in wanted if name != "null"] or wanted
        return f"must be {' or '.join(wanted)}, not {_TYPE_WORDS.get(types[2], types[2])}"
    return "has a wrong form"


def _choices(struct: type[msgspec.Struct], field: str) -> list[str]:
    info: Any = msgspec.inspect.type_info(struct)
    for candidate in info.fields:
        if candidate.encode_name == field:
            options = getattr(candidate.type, "types", (candidate.type,))
            return [str(value) for option in options for value in getattr(option, "values", ())]
    return []
