"""Log lines as JSON on one stream: what happened, for which request, without anything that names a person."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, BinaryIO

import msgspec
import structlog

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request being answered; lines of lower layers carry it too."""

_LONGEST_TEXT = 500
_MOST_FRAMES = 12
_SECRETS = (
    # A database says `Key (email)=(a@b.c) already exists`; a URL may hold a password.
    (re.compile(r"=\([^)]*\)"), "=(...)"),
    (re.compile(r"\b([a-z][a-z0-9+]*)://[^\s'\"]+", re.IGNORECASE), r"\1://..."),
    (re.compile(r"\b(?:Bearer|Basic)\s+\S+", re.IGNORECASE), "[credential]"),
    (re.compile(r"\btb_[A-Za-z0-9]+_[\w-]+"), "[key]"),
    (re.compile(r"\bpat-[\w-]+"), "[token]"),
    (re.compile(r"\beyJ[\w-]+\.[\w.-]+"), "[token]"),
    (re.compile(r"[^\s@'\"<>(),;:=]+@[^\s@'\"<>(),;:]+"), "[e-mail]"),
)

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def scrub(text: str) -> str:
    """The text without e-mails, credentials, URLs and quoted column values, and not too long."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "..."


def describe_exception(error: BaseException) -> dict[str, Any]:
    """An exception as log fields: its kind, its scrubbed text, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
    described: dict[str, Any] = {
        "error": type(error).__qualname__,
        "error_text": scrub(str(error)),
        "where": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    cause = error.__cause__ or error.__context__
    if cause is not None:
        described["cause"] = f"{type(cause).__qualname__}: {scrub(str(cause))}"
    return described


def _stamp(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["at"] = datetime.now(UTC)
    event["level"] = method
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event["request_id"] = request_id
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event.update(describe_exception(error))
    return event


def _render(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> bytes:
    return _encode(event)


def configure_logs(stream: BinaryIO | None = None, *, level: str = "info") -> None:
    """Send structlog lines of this process, from `level` on, to the stream (standard output) as JSON."""
    structlog.configure(
        processors=[_stamp, _render],
        logger_factory=structlog.BytesLoggerFactory(stream),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
