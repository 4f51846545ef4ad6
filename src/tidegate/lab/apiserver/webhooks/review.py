"""AdmissionReview, both ways (pure): the question as it is sent, and what an answer is worth.

Follows apiserver pkg/admission/plugin/webhook/request/admissionreview.go and errors/statuserror.go, v1 and v1beta1.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

import msgspec

from tidegate.kube.api import JsonObject
from tidegate.kube.errors import ApiError
from tidegate.lab.apiserver.access import Subject
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.webhooks.matching import Asked, Hook

VERSIONS = ("v1", "v1beta1")
_INVALID = "received invalid webhook response"


class CallFailed(Exception):
    """A webhook could not be asked, or gave no answer worth the name: its failurePolicy says what follows."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a webhook says: ``patch`` is a JSON patch, empty for none."""

    is_allowed: bool
    result: JsonObject | None
    patch: list[JsonObject]
    warnings: tuple[str, ...]


def version_of(hook: Hook) -> str:
    """The first AdmissionReview version of the webhook's that is known. Raises ``CallFailed``."""
    for version in hook.webhook.get("admissionReviewVersions") or []:
        if version in VERSIONS:
            return str(version)
    why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)"
    raise CallFailed(f"could not create admission objects: {why}")


def shown(row: Row, obj: JsonObject | None, subresource: str) -> JsonObject | None:
    """A stored object as ``row`` shows it."""
    if obj is None or row.conversion is None or _body(row, subresource)[2] != row.kind:
        return obj
    return row.conversion.from_storage(obj)


def _body(row: Row, subresource: str) -> tuple[str, str, str]:
    """Group, version and kind of what a write to a resource carries."""
    resource, found = row.resource, row.subresource(subresource) if subresource else None
    if found is None or found.kind == row.kind:
        return resource.group, resource.version, row.kind
    return (found.group, found.version, found.kind) if found.version else (resource.group, resource.version, found.kind)


def question(hook: Hook, seen: Row, asked: Asked, uid: str, user: Subject) -> JsonObject:
    """The AdmissionReview that asks ``hook`` about a write, shown as ``seen`` has it. Raises ``CallFailed``."""

    def kind(row: Row) -> JsonObject:
        return dict(zip(("group", "version", "kind"), _body(row, asked.subresource), strict=True))

    def resource(row: Row) -> JsonObject:
        found = row.resource
        return {"group": found.group, "version": found.version, "resource": found.plural}

    request: JsonObject = {"uid": uid, "kind": kind(seen), "resource": resource(seen)}
    if asked.subresource:
        request["subResource"] = asked.subresource
    request |= {"requestKind": kind(asked.row), "requestResource": resource(asked.row)}
    if asked.subresource:
        request["requestSubResource"] = asked.subresource
    request |= {"name": asked.name} if asked.name else {}
    request |= {"namespace": asked.namespace} if asked.namespace else {}
    request |= {
        "operation": asked.operation,
        "userInfo": {"username": user.name, "groups": list(user.groups)},
        "object": shown(seen, asked.object, asked.subresource),
        "oldObject": shown(seen, asked.old, asked.subresource),
        "dryRun": asked.is_dry_run,
        "options": asked.options,
    }
    return {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version_of(hook)}", "request": request}


def verdict(body: bytes, uid: str, version: str, *, is_mutating: bool) -> Verdict:
    """An answer's content. Raises ``CallFailed``."""
    try:
        review: Any = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        why = f"couldn't get version/kind; json parse error: {error}"
        raise CallFailed(f"failed to call webhook: {why}") from None
    if not isinstance(review, dict):
        raise CallFailed("failed to call webhook: couldn't get version/kind; json parse error")
    response = review.get("response")
    if not isinstance(response, dict):
        raise CallFailed(f"{_INVALID}: webhook response was absent")
    if version == "v1":
        _verify(review, response, uid, is_mutating=is_mutating)
    patch: list[JsonObject] = []
    if is_mutating and response.get("patch"):
        patch = _patch(response)
    result = response.get("status")
    warnings = tuple(str(text) for text in response.get("warnings") or ())
    return Verdict(bool(response.get("allowed")), result if isinstance(result, dict) else None, patch, warnings)


def _verify(review: JsonObject, response: JsonObject, uid: str, *, is_mutating: bool) -> None:
    if response.get("uid", "") != uid:
        text = f"expected response.uid={json.dumps(uid)}, got {json.dumps(response.get('uid', ''))}"
        raise CallFailed(f"{_INVALID}: {text}")
    group, _, version = str(review.get("apiVersion") or "").rpartition("/")
    got = f"{group}/{version}, Kind={review.get('kind') or ''}"
    wanted = "admission.k8s.io/v1, Kind=AdmissionReview"
    if got != wanted:
        raise CallFailed(f"{_INVALID}: expected webhook response of {wanted}, got {got}")
    patch, kind = response.get("patch"), response.get("patchType")
    if not is_mutating:
        for name, value in (("patch", patch), ("patchType", kind)):
            if value:
                raise CallFailed(f"{_INVALID}: validating webhook may not return response.{name}")
    elif patch and kind is None:
        raise CallFailed(f"{_INVALID}: webhook returned response.patch but not response.patchType")
    elif kind is not None and not patch:
        raise CallFailed(f"{_INVALID}: webhook returned response.patchType but not response.patch")


def _patch(response: JsonObject) -> list[JsonObject]:
    try:
        patch: Any = msgspec.json.decode(base64.b64decode(str(response["patch"]), validate=True))
    except (binascii.Error, msgspec.DecodeError) as error:
        raise CallFailed(f"received undecodable patch in webhook response: {error}") from None
    if not isinstance(patch, list):
        text = "json: cannot unmarshal object into Go value of type jsonpatch.Patch"
        raise CallFailed(f"received undecodable patch in webhook response: {text}")
    kind = response.get("patchType", "JSONPatch")
    if patch and kind != "JSONPatch":
        raise CallFailed(f"unsupported patch type {json.dumps(kind)}")
    return patch


def denied(hook: Hook, result: JsonObject | None) -> ApiError:
    """What the caller is answered when ``hook`` said no."""
    status = dict(result or {})
    status["code"] = max(int(status.get("code") or 0), 400)
    status["status"] = "Failure"
    said = f'admission webhook "{hook.name}" denied the request'
    why = status.get("message") or status.get("reason")
    status["message"] = f"{said}: {why}" if why else f"{said} without explanation"
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, **status}
    return ApiError(status["code"], str(status.get("reason") or ""), status["message"], status)


def inapplicable(target: Any, operation: JsonObject) -> str:
    """Why an operation of a JSON patch does not apply, in the words of evanphx/json-patch; "" where we have none."""
    name, path = operation.get("op"), str(operation.get("path") or "")
    *above, last = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]] or [""]
    holder = target
    for key in above:
        if isinstance(holder, list):
            holder = holder[int(key)] if key.isdigit() and int(key) < len(holder) else None
        else:
            holder = holder.get(key) if isinstance(holder, dict) else None
    if name == "test":
        return f"testing value {path} failed: test failed"
    if holder is None and name in ("add", "remove", "replace"):
        shown_path = path if name == "replace" else f'"{path}"'
        return f"{name} operation does not apply: doc is missing path: {shown_path}: missing value"
    if name == "remove" and isinstance(holder, dict):
        return f"error in remove for path: '{path}': Unable to remove nonexistent key: {last}: missing value"
    if name == "replace" and isinstance(holder, dict):
        return f"replace operation does not apply: doc is missing key: {path}: missing value"
    return ""
