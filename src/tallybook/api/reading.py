"""From the wire to a typed request: body limit, media type, JSON, old names, clean texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive

from tallybook.api.problems import explain, invalid
from tallybook.domain.errors import PayloadTooLarge, UnsupportedMediaType, ValidationError

BODY_LIMIT_BYTES = 64 * 1024
_MOST_QUERY_FIELDS = 32
# C0, DEL and C1, and the two separators that end a line in logs and scripts.
_UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNCLEAN_LINES = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request may carry. A field also goes by its camelCase name; `superfluous` ones are dropped."""

    superfluous: ClassVar[frozenset[str]] = frozenset()
    """Fields that the old front end sends without need."""
    aliases: ClassVar[Mapping[str, str]] = {}
    """Further old names of fields."""
    multiline: ClassVar[frozenset[str]] = frozenset()
    """Fields that may hold line breaks and tabs."""


ShapeT = TypeVar("ShapeT", bound=Shape)


class ClientGoneError(Exception):
    """The client hung up before it had sent its request."""


def camel_case(name: str) -> str:
    """`mock_exam_id` as the old front end writes it: `mockExamId`."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


class ShapeReader(Generic[ShapeT]):
    """Reads one shape from a JSON body or a query string. Every refusal names the field and the problem."""

    def __init__(self, shape: type[ShapeT]) -> None:
        self._shape = shape
        self._decode = msgspec.json.Decoder(shape).decode
        self._names = {camel_case(field): field for field in shape.__struct_fields__} | dict(shape.aliases)
        self._dropped = shape.superfluous | {camel_case(field) for field in shape.superfluous}

    def from_json(self, raw: bytes) -> ShapeT:
        """The body. Raises ValidationError."""
        raw = raw or b"{}"
        try:
            body = self._decode(raw)
        except msgspec.ValidationError:
            body = self._from_old_names(_parse(raw), strict=True, whole="body")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _malformed() from None
        # JSON holds a control character only behind a backslash or as raw DEL or C1; few bodies have any.
        if b"\\" in raw or b"\x7f" in raw or not raw.isascii():
            self._check_texts(body)
        return body

    def from_query(self, raw: bytes) -> ShapeT:
        """The query string; an empty value counts as not given. Raises ValidationError."""
        try:
            pairs = parse_qsl(
                raw.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_MOST_QUERY_FIELDS,
            )
        except ValueError:
            raise invalid("query", "cannot be read as key=value pairs in UTF-8") from None
        given: dict[str, Any] = {}
        for name, value in pairs:
            if given.setdefault(name, value) != value:
                raise invalid(name, "is given twice")
        query = self._from_old_names(
            {name: value for name, value in given.items() if value}, strict=False, whole="query"
        )
        self._check_texts(query)
        return query

    def _from_old_names(self, given: Any, *, strict: bool, whole: str) -> ShapeT:
        if isinstance(given, dict):
            kept = {name: value for name, value in given.items() if name not in self._dropped}
            given = {self._names.get(name, name): value for name, value in kept.items()}
            # The name of today wins over its old one.
            given |= {name: value for name, value in kept.items() if name in self._shape.__struct_fields__}
        try:
            return msgspec.convert(given, self._shape, strict=strict)
        except msgspec.ValidationError as error:
            raise explain(error, self._shape, whole=whole) from None

    def _check_texts(self, read: Shape) -> None:
        for field in read.__struct_fields__:
            value = getattr(read, field)
            for text in value if isinstance(value, list) else (value,):
                if isinstance(text, str):
                    check_text(field, text, lines=field in self._shape.multiline)


def check_text(field: str, text: str, *, longest: int | None = None, lines: bool = False) -> None:
    """Refuse control characters, which belong in no id and no name, and texts that are too long."""
    if longest is not None and len(text) > longest:
        raise invalid(field, f"must have at most {longest} characters")
    if (_UNCLEAN_LINES if lines else _UNCLEAN).search(text):
        raise invalid(field, "must not contain control characters")


def _parse(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _malformed() from None


def _malformed() -> ValidationError:
    return ValidationError(
        "The request is not valid: the body is not well-formed JSON in UTF-8.",
        field="body",
        problem="is not well-formed JSON in UTF-8",
    )


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], *, limit_bytes: int = BODY_LIMIT_BYTES
) -> bytes:
    """The whole body. Raises PayloadTooLarge before reading more than the limit, ClientGoneError."""
    announced = headers.get(b"content-length", b"0")
    if not announced.isdigit() or int(announced) > limit_bytes:
        raise PayloadTooLarge(limit_bytes=limit_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit_bytes:
            raise PayloadTooLarge(limit_bytes=limit_bytes)
        if not message.get("more_body", False):
            return b"".join(chunks)


def check_media_type(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body that is not announced as application/json in UTF-8. Raises UnsupportedMediaType."""
    given = headers.get(b"content-type", b"")
    if given == b"application/json":
        return
    media_type, *parameters = (part.strip() for part in given.decode("latin-1").lower().split(";"))
    charsets = [part.partition("=")[2].strip('"') for part in parameters if part.startswith("charset=")]
    if media_type != "application/json" or any(charset not in {"utf-8", "utf8"} for charset in charsets):
        raise UnsupportedMediaType
