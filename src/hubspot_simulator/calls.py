"""One call to the API as the handlers see it, and what they give back."""

from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec

from hubspot_simulator.errors import ApiError, invalid
from hubspot_simulator.records import Source
from hubspot_simulator.values import Raw, iso, whole_id

Model = TypeVar("Model")


@dataclass(slots=True)
class Call:
    """One call: its path without version, its query and body, who makes it, when it takes effect.

    `epoch` is the portal's at the time it came in.
    """

    method: str
    parts: tuple[str, ...]
    query_string: str
    body: bytes
    source: Source
    at_ms: int = 0
    epoch: int = 0
    _query: dict[str, list[str]] | None = field(default=None)

    def query(self) -> dict[str, list[str]]:
        """The query string, parsed once."""
        if self._query is None:
            self._query = parse_qs(self.query_string, keep_blank_values=True)
        return self._query

    def names(self, name: str) -> list[str]:
        """A list parameter, given several times or as one comma-separated value."""
        return [one for text in self.query().get(name, []) for one in text.split(",") if one]

    def text(self, name: str) -> str | None:
        """A single parameter; None when absent or empty."""
        values = self.query().get(name)
        return values[0] or None if values else None

    def flag(self, name: str) -> bool:
        """A boolean parameter, false by default."""
        return (self.text(name) or "false").lower() == "true"

    def whole(self, name: str, default: int) -> int:
        """A whole number; ApiError 400 for other text."""
        text = self.text(name)
        if text is None:
            return default
        number = whole_id(text)
        if number is None:
            raise invalid(f"Invalid value for parameter {name}: {text}")
        return number

    def json(self, model: type[Model]) -> Model:
        """The body as a typed value; ApiError 400 when it is no JSON or has another shape."""
        try:
            return msgspec.json.decode(self.body, type=model, strict=False)
        except msgspec.ValidationError as error:
            raise invalid(f"Invalid input JSON: {error}") from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise invalid(f"Invalid input JSON on line 1, column 1: {error}") from None


@dataclass(slots=True)
class Answer:
    """A status and a JSON-able body; None is an empty body."""

    status: int
    body: Any = None


class _Wire(msgspec.Struct, rename="camel"):
    """Bodies are camel case on the wire; unknown fields are ignored as HubSpot ignores them."""


class LinkSpec(_Wire):
    """One kind of association as a write names it."""

    association_type_id: int
    association_category: str = "USER_DEFINED"


class ObjectRef(_Wire):
    """The other end of an association."""

    id: str | int


class InlineLink(_Wire):
    """An association given while creating a record."""

    to: ObjectRef
    types: list[LinkSpec]


class CreateInput(_Wire):
    """One record to create."""

    properties: dict[str, Raw]
    associations: list[InlineLink] | None = None
    object_write_trace_id: str | None = None


class UpdateInput(_Wire):
    """One record to update or upsert."""

    id: str | int
    properties: dict[str, Raw]
    id_property: str | None = None
    object_write_trace_id: str | None = None


class UpdateBody(_Wire):
    """The body of a single update."""

    properties: dict[str, Raw]


class IdInput(_Wire):
    """One record named by its id or by a unique value."""

    id: str | int


class BatchRead(_Wire):
    """The body of batch/read."""

    inputs: list[IdInput]
    properties: list[str] = []
    properties_with_history: list[str] = []
    id_property: str | None = None


class BatchCreate(_Wire):
    """The body of batch/create."""

    inputs: list[CreateInput]


class BatchUpdate(_Wire):
    """The body of batch/update and batch/upsert."""

    inputs: list[UpdateInput]


class BatchIds(_Wire):
    """The body of batch/archive."""

    inputs: list[IdInput]


def batch_answer(
    call: Call,
    results: list[Any],
    errors: list[dict[str, Any]],
    *,
    status: int = 200,
    end_ms: int | None = None,
) -> Answer:
    """A batch's answer: `status` when all went well, 207 with `errors` and `numErrors` otherwise."""
    body: dict[str, Any] = {
        "status": "COMPLETE",
        "results": results,
        "startedAt": iso(call.at_ms),
        "completedAt": iso(call.at_ms if end_ms is None else end_ms),
    }
    if errors:
        body["numErrors"] = len(errors)
        body["errors"] = errors
    return Answer(207 if errors else status, body)


def within(count: int, limit: int, what: str = "inputs") -> None:
    """ApiError 400 when a batch has more inputs than HubSpot takes."""
    if count > limit:
        raise ApiError(
            400,
            f"The maximum number of {what} supported in a batch request is {limit}.",
            category="VALIDATION_ERROR",
        )
