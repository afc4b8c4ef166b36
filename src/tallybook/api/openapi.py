"""The OpenAPI 3.1 document, made from the route table: what the code reads is what the document says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec

from tallybook.api.callers import Access
from tallybook.api.reading import Shape
from tallybook.api.route import OtherAnswer, Route
from tallybook.api.statuses import retry_after_s, status_of
from tallybook.domain import errors
from tallybook.domain.errors import TallybookError

_REF = "#/components/schemas/{name}"
_JSON = "application/json"
_PARAM = re.compile(r"\{(\w+)\}")
_PARAM_TEXTS = {
    "booking": "A HubSpot id, a UUID or a booking_id.",
    "contact": "A UUID, a HubSpot id, `student:1599005` or `email:a@b.c`.",
    "hold": "What POST /api/credits/holds gave as `id`.",
    "mock_exam": "A HubSpot id or a UUID.",
    "conflict": "Its number, as the list of conflicts gives it.",
    "type": "contact, mock_exam, booking or inbox.",
    "letter": "Its `id`, as the list of dead letters gives it.",
    "lane": "booking, contact, mock_exam or pull.",
    "student_id": "A student ID; or a contact as `email:a@b.c`, a UUID or a HubSpot id.",
}
_SECURITY: dict[Access, list[dict[str, list[str]]]] = {
    Access.PUBLIC: [],
    Access.STUDENT: [{"studentToken": []}, {"apiKey": []}],
    Access.APPLICATION: [{"creditsKey": []}],
    Access.CRON: [{"cronSecret": []}],
    Access.STAFF: [{"staffToken": []}],
    Access.DOCS: [{"staff": []}],
    Access.METRICS: [{"metricsToken": []}],
    Access.HUBSPOT: [{"hubspotSignature": []}],
    Access.STRIPE: [{"stripeSignature": []}],
}
_SCHEMES = {
    "studentToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The token that POST /api/user/login gives; good for 12 hours.",
    },
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "tb_<id>_<secret>",
        "description": "An application's key with the scope `students`; each request names its student.",
    },
    "creditsKey": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "tb_<id>_<secret>",
        "description": "An application's key with the scope `credits`.",
    },
    "cronSecret": {"type": "http", "scheme": "bearer", "description": "CRON_SECRET."},
    "metricsToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "TALLYBOOK_METRICS_TOKEN; not needed on the machine itself.",
    },
    "staff": {"type": "http", "scheme": "basic", "description": "A local staff account."},
    "stripeSignature": {
        "type": "apiKey",
        "in": "header",
        "name": "Stripe-Signature",
        "description": "Stripe's signature with STRIPE_WEBHOOK_SECRET.",
    },
    "hubspotSignature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-HubSpot-Signature-v3",
        "description": "HubSpot's signature by the app's client secret, with X-HubSpot-Request-Timestamp.",
    },
    "staffToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The token that POST /api/admin/login gives; good for 12 hours. What it may do is "
        "decided by the account's role at each request.",
    },
}
_ALWAYS = (errors.ValidationError, TallybookError)
_BY_ACCESS: dict[Access, tuple[type[TallybookError], ...]] = {
    Access.PUBLIC: (errors.RateLimited, errors.DatabaseUnavailable),
    Access.STUDENT: (
        errors.Unauthenticated,
        errors.Forbidden,
        errors.RateLimited,
        errors.DatabaseUnavailable,
    ),
    Access.APPLICATION: (errors.Unauthenticated, errors.Forbidden, errors.DatabaseUnavailable),
    Access.CRON: (errors.Unauthenticated, errors.NotFound, errors.DatabaseUnavailable),
    Access.STAFF: (
        errors.Unauthenticated,
        errors.Forbidden,
        errors.RateLimited,
        errors.DatabaseUnavailable,
    ),
    Access.DOCS: (errors.Unauthenticated,),
    Access.METRICS: (errors.Unauthenticated,),
    Access.HUBSPOT: (errors.Unauthenticated, errors.NotFound, errors.DatabaseUnavailable),
    Access.STRIPE: (errors.Unauthenticated, errors.NotFound, errors.DatabaseUnavailable),
}
_WITH_BODY = (errors.PayloadTooLarge, errors.UnsupportedMediaType)
_WITH_KEY = (errors.IdempotencyKeyReused, errors.IdempotencyInProgress)
_FAILURE = {
    "type": "object",
    "required": ["success", "error", "request_id"],
    "properties": {
        "success": {"const": False},
        "error": {
            "type": "object",
            "required": ["code", "message", "details"],
            "properties": {
                "code": {"type": "string", "description": "Stable; programs decide by it."},
                "message": {"type": "string", "description": "For people; may change."},
                "details": {"type": "object", "description": "Data that helps to act on the code."},
            },
        },
        "request_id": {"type": "string"},
    },
}
_HEADERS = {
    "X-Request-Id": {
        "description": "Names this request in the log. A well-formed one sent by the client is kept.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds after which the same request may succeed.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Idempotency-Replayed": {
        "description": "`true` when this is the first answer to the same key again.",
        "schema": {"type": "string", "const": "true"},
    },
    "Allow": {"description": "The methods of this address.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to sign in.", "schema": {"type": "string"}},
}
_PARAMETERS = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Up to 64 letters, digits, dots, hyphens and underscores.",
        "schema": {"type": "string"},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes a repeat safe for 24 hours: the same key and request give the first answer "
        "again. X-Idempotency-Key is the same.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    },
}


def openapi_document(routes: Iterable[Route]) -> dict[str, Any]:
    """The document."""
    routes = tuple(routes)
    types = [
        shape
        for route in routes
        for shape in (route.body, route.query, route.answer, *(other.answer for other in route.also))
        if shape is not None
    ]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = dict(zip(map(str, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type, components)
    query_names = {route.query.__name__ for route in routes if route.query is not None}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tallybook",
            "version": version("tallybook"),
            "summary": "Prepaid credits and seat bookings.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in query_names}
            | {"Failure": _FAILURE},
            "securitySchemes": _SCHEMES,
            "headers": _HEADERS,
            "parameters": _PARAMETERS,
        },
    }


def _operation(route: Route, by_type: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PARAM_TEXTS[name],
            "schema": _id_schema(),
        }
        for name in _PARAM.findall(route.path)
    ]
    if route.query is not None:
        parameters += _query_parameters(route.query, components)
    if route.idempotent:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    parameters.append({"$ref": "#/components/parameters/RequestId"})
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub('[^a-zA-Z0-9]+', '_', route.path)}".rstrip("_"),
        "summary": route.summary,
        "tags": [route.tag],
        "security": _SECURITY[route.access],
        "parameters": parameters,
        "responses": _responses(route, by_type),
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": any(field.required for field in msgspec.structs.fields(route.body)),
            "content": {_JSON: {"schema": by_type[str(route.body)]}},
        }
    elif route.raw_body_limit_bytes is not None:
        operation["requestBody"] = {
            "required": True,
            "description": "As its sender documents it.",
            "content": {_JSON: {"schema": {}}},
        }
    return operation


def _id_schema() -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": 200}


def _query_parameters(shape: type[Shape], components: dict[str, Any]) -> list[dict[str, Any]]:
    schema = components[shape.__name__]
    parameters = []
    for name, given in schema["properties"].items():
        own = {key: value for key, value in given.items() if key not in {"description", "default"}}
        # A parameter that is not given is absent; it cannot be null.
        options = [option for option in own.pop("anyOf", [own]) if option.get("type") != "null"]
        field: dict[str, Any] = {"name": name, "in": "query", "required": name in schema.get("required", ())}
        described = given.get("description") or options[0].get("description")
        if described:
            field["description"] = described
        field["schema"] = {key: value for key, value in options[0].items() if key != "description"}
        if not field["required"] and field["schema"].get("minLength") == 1:
            # An empty value counts as not given.
            del field["schema"]["minLength"]
        if given.get("default") is not None:
            field["schema"]["default"] = given["default"]
        parameters.append(field)
    return parameters


def _responses(route: Route, by_type: dict[str, Any]) -> dict[str, Any]:
    answers = [OtherAnswer(route.status, HTTPStatus(route.status).phrase, route.answer), *route.also]
    responses = {str(answer.status): _success(route, answer, by_type) for answer in answers}
    for status, kinds in sorted(_refusals(route).items()):
        responses[str(status)] = _failure(kinds)
    return responses


def _success(route: Route, answer: OtherAnswer, by_type: dict[str, Any]) -> dict[str, Any]:
    headers = {"X-Request-Id": _header("X-Request-Id")}
    if route.idempotent:
        headers["Idempotency-Replayed"] = _header("Idempotency-Replayed")
    schema: dict[str, Any] = {"type": "object" if route.media_type == _JSON else "string"}
    if answer.answer is not None:
        schema = {
            "type": "object",
            "required": ["success", "data"],
            "properties": {
                "success": {"const": True},
                "data": by_type[str(answer.answer)],
                "message": {"type": "string"},
            },
        }
    return {
        "description": answer.meaning,
        "headers": headers,
        "content": {route.media_type: {"schema": schema}},
    }


def _refusals(route: Route) -> dict[int, list[type[TallybookError]]]:
    kinds: list[type[TallybookError]] = [*_ALWAYS, *_BY_ACCESS[route.access], *route.errors]
    if route.body is not None:
        kinds += _WITH_BODY
    if route.raw_body_limit_bytes is not None:
        kinds.append(errors.PayloadTooLarge)
    if route.idempotent:
        kinds += _WITH_KEY
    by_status: dict[int, list[type[TallybookError]]] = {}
    for kind in dict.fromkeys(kinds):
        by_status.setdefault(status_of(kind), []).append(kind)
    return by_status


def _failure(kinds: list[type[TallybookError]]) -> dict[str, Any]:
    headers = {"X-Request-Id": _header("X-Request-Id")}
    if any(retry_after_s(kind()) is not None for kind in kinds):
        headers["Retry-After"] = _header("Retry-After")
    if errors.Unauthenticated in kinds:
        headers["WWW-Authenticate"] = _header("WWW-Authenticate")
    return {
        "description": ", ".join(kind.code for kind in kinds),
        "headers": headers,
        "content": {
            _JSON: {
                "schema": {"$ref": _REF.format(name="Failure")},
                "examples": {kind.code: {"value": _example(kind)} for kind in kinds},
            }
        },
    }


def _example(kind: type[TallybookError]) -> dict[str, Any]:
    error = kind()
    details: dict[str, Any] = {}
    if issubclass(kind, errors.ValidationError):
        details = {"field": "mock_type", "problem": "is required"}
    return {
        "success": False,
        "error": {"code": error.code, "message": error.message, "details": details},
        "request_id": "5f0c1b2a9d8e7f6a5b4c3d2e",
    }


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}
