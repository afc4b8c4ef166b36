"""Reads typed values out of a catalog file and names file, line and mistake when one is wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

from tallybook.domain.contacts import is_clean
from tallybook.domain.errors import SetupError
from tallybook.domain.toml_lines import Path, key_lines

T = TypeVar("T")

LONGEST_NAME = 80
_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_KINDS = {bool: "true or false", int: "a number", float: "a number with a point", str: "text", list: "a list"}


class CatalogSource:
    """The parsed text of one catalog file."""

    def __init__(self, text: str, *, file: str) -> None:
        self._file = file
        text = text.removeprefix("\ufeff")  # Some editors put this mark first; it means nothing.
        try:
            self.content: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = _AT_LINE.search(str(error))
            line = int(found[1]) if found and found[1] else max(1, len(text.splitlines()))
            self._lines: dict[Path, int] = {("",): line}
            self.fail(("",), f"this is not TOML: {_AT_LINE.sub('', str(error))}")
        self._lines = key_lines(text)

    def fail(self, path: Path, problem: str) -> NoReturn:
        """Raises SetupError for what stands at `path`, or at the nearest place around it that has a line."""
        while path and path not in self._lines:
            path = path[:-1]
        line = self._lines.get(path, 1)
        raise SetupError(
            f"{self._file}, line {line}: {problem}{'?' if '; did you mean ' in problem else '.'}",
            hint="Correct the file, then run: tallybook catalog check",
            file=self._file,
            line=line,
            problem=problem,
        )

    def reject_unknown(self, path: Path, found: dict[str, Any], known: tuple[str, ...]) -> None:
        """Raises SetupError for the first key that has no meaning here."""
        for key in found:
            if key not in known:
                self.fail((*path, key), f"unknown key {key!r}{suggestion(key, known)}")

    def tables(self, section: str) -> Iterator[CatalogTable]:
        """The tables of `[[section]]`, in the order of the file; none when the section is missing."""
        tables = self.content.get(section, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.fail((section,), f"{section} must be written as [[{section}]] tables")
        for index, table in enumerate(tables):
            yield CatalogTable(self, (section, index), table)


def suggestion(word: str, known: tuple[str, ...]) -> str:
    """The end of a sentence: what was probably meant, else all that is known."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {str(close[0])!r}"
    return f"; known: {', '.join(known)}" if known else ""


class CatalogTable:
    """One `[[...]]` table; every getter raises SetupError naming the line when the value is wrong."""

    def __init__(self, source: CatalogSource, path: Path, values: dict[str, Any]) -> None:
        self._source = source
        self._path = path
        self._values = values

    def fail(self, key: str, problem: str) -> NoReturn:
        """Raises SetupError at this key."""
        self._source.fail((*self._path, key), problem)

    def only(self, *known: str) -> None:
        """Raises SetupError when another key stands in the table."""
        self._source.reject_unknown(self._path, self._values, known)

    def has(self, key: str) -> bool:
        """Whether the table has this key."""
        return key in self._values

    def _get(self, key: str, kind: type, default: Any) -> Any:
        if key not in self._values:
            if default is None:
                self.fail(key, f"{self._path[0]} needs {key}")
            return default
        value = self._values[key]
        if type(value) is not kind:
            self.fail(
                key,
                f"{key} must be {_KINDS[kind]}, not {_KINDS.get(type(value), 'a ' + type(value).__name__)}",
            )
        return value

    def text(self, key: str, *, default: str | None = None) -> str:
        """Visible text of 1 to 80 characters without spaces around it."""
        value: str = self._get(key, str, default)
        if not 1 <= len(value) <= LONGEST_NAME or value != value.strip() or not is_clean(value):
            self.fail(key, f"{key} must be 1 to {LONGEST_NAME} visible characters without spaces around them")
        return value

    def word(self, key: str) -> str:
        """A lower-case name such as sj_credits."""
        value = self.text(key)
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", value):
            self.fail(key, f"{key} must be lower-case letters, digits and underscores, such as sj_credits")
        return value

    def number(self, key: str, *, least: int, most: int, default: int | None = None) -> int:
        """A whole number from `least` to `most`."""
        value: int = self._get(key, int, default)
        if not least <= value <= most:
            self.fail(key, f"{key} must be from {least} to {most}, not {value}")
        return value

    def choice(self, key: str, known: tuple[str, ...], *, default: str | None = None) -> str:
        """One of the known words."""
        value: str = self._get(key, str, default)
        if value not in known:
            self.fail(key, f"{key} {value!r} is not known{suggestion(value, known)}")
        return value

    def choices(
        self, key: str, known: tuple[str, ...], *, default: list[str] | None = None
    ) -> tuple[str, ...]:
        """A list of different known words."""
        values: list[Any] = self._get(key, list, default)
        for index, value in enumerate(values):
            here = (*self._path, key, index)
            if not isinstance(value, str) or value not in known:
                self._source.fail(
                    here, f"{key} has {value!r}, which is not known{suggestion(str(value), known)}"
                )
            if value in values[:index]:
                self._source.fail(here, f"{key} names {value!r} twice")
        return tuple(values)


def all_different(items: list[tuple[CatalogTable, T]], key: str, value: Callable[[T], str | None]) -> None:
    """Raises SetupError at the second item that repeats a value, upper and lower case alike."""
    seen: set[str] = set()
    for table, item in items:
        found = value(item)
        if found is not None and found.casefold() in seen:
            table.fail(key, f"{key} {found!r} stands here for the second time")
        if found is not None:
            seen.add(found.casefold())
