"""HubSpot's error bodies; the wordings are those seen in its documentation and in public issue threads."""

from typing import Any

import msgspec


class ApiError(Exception):
    """A refusal as HubSpot words it: a status and a JSON body."""

    def __init__(self, status: int, message: str, *, category: str | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.category = category
        self.fields = fields
        self.retry_after_s: int | None = None

    def body(self, correlation_id: str) -> dict[str, Any]:
        """The JSON body; `correlation_id` is new for each call."""
        body: dict[str, Any] = {"status": "error", "message": self.message, "correlationId": correlation_id}
        if self.category is not None:
            body["category"] = self.category
        body.update(self.fields)
        return body

    def in_batch(self, trace_id: str | None) -> dict[str, Any]:
        """The same refusal as one entry of a 207 answer's `errors`."""
        context: dict[str, list[str]] = dict(self.fields.get("context", {}))
        if trace_id is not None:
            context["objectWriteTraceId"] = [trace_id]
        return {
            "status": "error",
            "category": self.category or "VALIDATION_ERROR",
            "message": self.message,
            "context": context,
            "errors": self.fields.get("errors", []),
            "links": {},
        }


def invalid(message: str, **fields: Any) -> ApiError:
    """400 VALIDATION_ERROR."""
    return ApiError(400, message, category="VALIDATION_ERROR", **fields)


def bad_values(portal_id: int, faults: list[tuple[str, str, str]]) -> ApiError:
    """400 for property values; each fault is (property, code, message)."""
    listed = [
        {
            "isValid": False,
            "message": message,
            "error": code,
            "name": name,
            "localizedErrorMessage": message,
            "portalId": portal_id,
        }
        for name, code, message in faults
    ]
    errors = [
        {"message": message, "code": code, "context": {"propertyName": [name]}}
        for name, code, message in faults
    ]
    text = msgspec.json.encode(listed).decode()
    return invalid(f"Property values were not valid: {text}", errors=errors)


def contact_exists(existing_id: int) -> ApiError:
    """409 for an e-mail that another contact has; the id is only in the text."""
    return ApiError(409, f"Contact already exists. Existing ID: {existing_id}", category="CONFLICT")


def taken(portal_id: int, type_text: str, name: str, value: str, *, on_id: int, owner_id: int) -> ApiError:
    """400 for a unique value that another record has."""
    text = (
        f"Cannot set PropertyValueCoordinates{{portalId={portal_id}, objectTypeId={type_text}, "
        f"propertyName={name}, value={value}}} on {on_id}. {owner_id} already has that value."
    )
    code = {"code": "CONFLICTING_UNIQUE_VALUE", "message": text, "context": {"propertyName": [name]}}
    return invalid(text, errors=[code])


def not_found(message: str = "resource not found") -> ApiError:
    """404 OBJECT_NOT_FOUND."""
    return ApiError(404, message, category="OBJECT_NOT_FOUND")


def unauthorised() -> ApiError:
    """401 with HubSpot's sentence; it is the same for a missing and for a wrong token."""
    return ApiError(
        401,
        "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find "
        "more details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
        category="INVALID_AUTHENTICATION",
    )


def missing_scopes(scopes: list[str]) -> ApiError:
    """403 for a token that lacks a scope."""
    needed = {
        "message": "One or more of the following scopes are required.",
        "context": {"requiredGranularScopes": scopes},
    }
    return ApiError(
        403,
        "This app hasn't been granted all required scopes to make this call. Read more about required scopes "
        "here: https://developers.hubspot.com/scopes.",
        category="MISSING_SCOPES",
        errors=[needed],
        links={"scopes": "https://developers.hubspot.com/scopes"},
    )


def locked() -> ApiError:
    """423; HubSpot asks to wait two seconds."""
    return ApiError(423, "The resource is locked by another operation.", category="RESOURCE_LOCKED")


def migrating(left_s: int) -> ApiError:
    """477 while the account moves to another place, with `Retry-After`."""
    error = ApiError(
        477,
        "This HubSpot account is currently being migrated between data hosting locations.",
        category="MIGRATION_IN_PROGRESS",
    )
    error.retry_after_s = left_s
    return error


def rate_limited(policy: str, request_id: str) -> ApiError:
    """429; `policy` is DAILY, TEN_SECONDLY_ROLLING or SECONDLY."""
    return ApiError(
        429,
        f"You have reached your {policy.lower()} limit.",
        errorType="RATE_LIMIT",
        policyName=policy,
        requestId=request_id,
    )


def unknown_type(name: str) -> ApiError:
    """400 for an object type the portal has not got; HubSpot sends no category here."""
    return ApiError(400, f"Unable to infer object type from: {name}")
