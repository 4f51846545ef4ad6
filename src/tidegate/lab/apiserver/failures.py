"""The failures the server answers, in the real server's words.

Each function builds an ``ApiError`` whose ``Status`` is what apimachinery's api/errors/errors.go would send:
clients (kubectl, client-go's ``apierrors.Is...``) branch on ``reason``, ``details`` and sometimes the message.
"""

from __future__ import annotations

import json
from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.kube.errors import ApiError
from tidegate.lab.apiserver.registry import Row


def failure(code: int, reason: str, message: str, details: JsonObject | None = None) -> ApiError:
    """A ``Status`` of failure as an exception."""
    status: JsonObject = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
    }
    if reason:
        status["reason"] = reason
    if details is not None:
        status["details"] = details
    status["code"] = code
    return ApiError(code, reason, message, status)


def _details(row: Row, name: str, **more: Any) -> JsonObject:
    details: JsonObject = {"name": name} if name else {}
    if row.resource.group:
        details["group"] = row.resource.group
    details["kind"] = row.resource.plural
    details.update(more)
    return details


def not_found(row: Row, name: str) -> ApiError:
    return failure(404, "NotFound", f'{row.qualified} "{name}" not found', _details(row, name))


def no_such_path() -> ApiError:
    """An URL no resource is served at, below a group that is."""
    return failure(404, "NotFound", "the server could not find the requested resource", {})


def no_such_page() -> ApiError:
    """An URL of no group at all: the router's answer, which is not even a Status."""
    return failure(404, "", "404 page not found")


def already_exists(row: Row, name: str) -> ApiError:
    return failure(409, "AlreadyExists", f'{row.qualified} "{name}" already exists', _details(row, name))


def no_unique_name(row: Row, name: str) -> ApiError:
    message = (
        f'{row.qualified} "{name}" already exists, the server was not able to generate a unique name for the object'
    )
    return failure(409, "AlreadyExists", message, _details(row, name, retryAfterSeconds=1))


def unmet(row: Row, name: str, why: str) -> ApiError:
    """409 for a delete's precondition: BeforeDelete names the kind where others name the resource."""
    qualified = f"{row.kind}.{row.resource.group}" if row.resource.group else row.kind
    details = {**_details(row, name), "kind": row.kind}
    return failure(409, "Conflict", f'Operation cannot be fulfilled on {qualified} "{name}": {why}', details)


def conflict(row: Row, name: str, why: str = "", subresource: str = "") -> ApiError:
    """409 for a stale resourceVersion (the default text) or a failed precondition."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    tail = f"/{subresource}" if subresource else ""
    message = f'Operation cannot be fulfilled on {row.qualified}{tail} "{name}": {why}'
    details = {**_details(row, name), "kind": row.resource.plural + tail}
    return failure(409, "Conflict", message, details)


def unversioned(row: Row, name: str) -> ApiError:
    """422 for an update that does not say what it updates, of a kind that wants it said."""
    text = "Invalid value: 0: must be specified for an update"
    cause = {"reason": "FieldValueInvalid", "message": text, "field": "metadata.resourceVersion"}
    message = f'{row.qualified} "{name}" is invalid: metadata.resourceVersion: {text}'
    return failure(422, "Invalid", message, _details(row, name, causes=[cause]))


def bad_request(message: str) -> ApiError:
    return failure(400, "BadRequest", message)


def forbidden(row: Row, name: str, why: str, causes: list[JsonObject] | None = None) -> ApiError:
    details = _details(row, name, causes=causes) if causes else _details(row, name)
    return failure(403, "Forbidden", f'{row.qualified} "{name}" is forbidden: {why}', details)


def method_not_allowed() -> ApiError:
    return failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def unknown_patch_type() -> ApiError:
    """A PATCH of another content type: the router's answer, before any handler."""
    return failure(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def unsupported_media_type(accepted: list[str]) -> ApiError:
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return failure(415, "UnsupportedMediaType", message)


def not_acceptable(accepted: list[str], *, as_object: bool = False) -> ApiError:
    """406: of the router where no media type fits, of the handler (``as_object``) where a Table's version does not."""
    if as_object:
        return failure(406, "NotAcceptable", "only the following media types are accepted: " + ", ".join(accepted))
    message = "406: Not Acceptable\n\nAvailable representations: " + ", ".join(accepted)
    return failure(406, "NotAcceptable", message, {})


_OPTION_REASONS = {"Forbidden": "FieldValueForbidden", "Unsupported value": "FieldValueNotSupported"}


def invalid_option(kind: str, causes: list[tuple[str, str]]) -> ApiError:
    """422 for query options: ``causes`` are (field, text after the field)."""
    listed = [
        {"reason": _OPTION_REASONS.get(text.partition(":")[0], "FieldValueInvalid"), "message": text, "field": name}
        for name, text in causes
    ]
    texts = [f"{name}: {text}" for name, text in causes]
    message = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = {"group": "meta.k8s.io", "kind": kind, "causes": listed}
    return failure(422, "Invalid", f'{kind}.meta.k8s.io "" is invalid: {message}', details)


def unusable_patch(shown: str, why: str) -> ApiError:
    """422 for a patch whose result is no object of the kind; ``shown`` is what the server holds against it."""
    text = f"Invalid value: {json.dumps(shown)}: {why}"
    cause = {"reason": "FieldValueInvalid", "message": text, "field": "patch"}
    return failure(422, "Invalid", f' "" is invalid: patch: {text}', {"causes": [cause]})


def expired(asked: int, oldest: int) -> ApiError:
    return failure(410, "Expired", f"too old resource version: {asked} ({oldest})")


def continue_expired() -> ApiError:
    message = (
        "The provided continue parameter is too old to display a consistent list result. "
        "You can start a new list without the continue parameter."
    )
    return failure(410, "Expired", message)


def too_large(asked: int, current: int) -> ApiError:
    """504: the caller is ahead of us (storage/errors.go NewTooLargeResourceVersionError)."""
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    return failure(504, "Timeout", message, {"causes": causes, "retryAfterSeconds": 1})


def too_many_requests(message: str, retry_after: int, causes: list[JsonObject]) -> ApiError:
    """429. ``retry_after`` 0 means no Retry-After header: client-go would retry by itself otherwise."""
    details: JsonObject = {"causes": causes}
    if retry_after:
        details["retryAfterSeconds"] = retry_after
    return failure(429, "TooManyRequests", message, details)


def internal(message: str) -> ApiError:
    details = {"causes": [{"message": message}]}
    return failure(500, "InternalError", f"Internal error occurred: {message}", details)


def unavailable(message: str) -> ApiError:
    return failure(503, "ServiceUnavailable", message)
