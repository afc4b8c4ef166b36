"""Where each key of a TOML text stands, so that a mistake can be named with its line.

tomllib gives values without positions. This reads the same text once more, only to find the lines; it relies
on tomllib having accepted the text first.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

Path = tuple[str | int, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACES = re.compile(r"[ \t]*")
_PLAIN_VALUE = re.compile(r"[^,\]}#\n]*")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*"{3,5}'  # Up to two quotes may end the text itself.
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
)


def key_lines(text: str) -> dict[Path, int]:
    """The line, from 1, of every table, key and array element of a TOML text that tomllib accepts."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._lines: dict[Path, int] = {}
        self._array_sizes: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        prefix: Path = ()
        while self._skip(_BLANK):
            line = self._line()
            if self._text.startswith("[", self._at):
                prefix = self._header()
                self._note(prefix, line)
            else:
                self._pair(prefix)
        return self._lines

    def _header(self) -> Path:
        of_array = self._text.startswith("[[", self._at)
        self._at += 2 if of_array else 1
        *parents, last = self._keys()
        self._at += 2 if of_array else 1
        path: Path = ()
        for key in parents:
            path = (*path, key)
            if path in self._array_sizes:
                path = (*path, self._array_sizes[path] - 1)
        path = (*path, last)
        if not of_array:
            return path
        index = self._array_sizes.get(path, 0)
        self._array_sizes[path] = index + 1
        return (*path, index)

    def _pair(self, prefix: Path) -> None:
        line = self._line()
        path = (*prefix, *self._keys())
        self._note(path, line)
        self._at += 1  # The equals sign.
        self._skip(_SPACES)
        self._value(path)

    def _value(self, path: Path) -> None:
        if string := _STRING.match(self._text, self._at):
            self._at = string.end()
        elif self._text[self._at] == "[":
            self._items(path, "]")
        elif self._text[self._at] == "{":
            self._items(path, "}")
        else:
            self._skip(_PLAIN_VALUE)

    def _items(self, path: Path, end: str) -> None:
        self._at += 1
        index = 0
        while self._skip(_BLANK) and self._text[self._at] != end:
            if end == "}":
                self._pair(path)
            else:
                self._note((*path, index), self._line())
                self._value((*path, index))
                index += 1
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1
        self._at += 1

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_SPACES)
            match = _BARE_KEY.match(self._text, self._at) or _STRING.match(self._text, self._at)
            assert match is not None, "tomllib accepted a key this scanner does not know"
            self._at = match.end()
            word = match.group()
            keys.append(tomllib.loads(f"key = {word}")["key"] if word[0] in "\"'" else word)
            self._skip(_SPACES)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _note(self, path: Path, line: int) -> None:
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], line)

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Whether anything is left after skipping."""
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at < len(self._text)

    def _line(self) -> int:
        return bisect_right(self._starts, self._at)
