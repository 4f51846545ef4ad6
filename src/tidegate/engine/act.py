"""Act: every write a drain makes, each safe to repeat and refused by the server when the pod is not ours any more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tidegate.kube.api import PODS, SERVICES, Api, Deletion, JsonObject, Patch, Resource
from tidegate.model.names import DRAIN_RESULT, RESERVATIONS, DrainRecord, DrainResult, encode_drain, encode_result
from tidegate.model.pod import Pod
from tidegate.model.service import Service

Step = dict[str, Any]


def instant(at: datetime) -> str:
    """RFC 3339 in UTC, to the second, as the API writes times."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def pointer(text: str) -> str:
    """A key as a JSON pointer's last part (RFC 6901)."""
    return text.replace("~", "~0").replace("/", "~1")


def tests(metadata: Mapping[str, Any]) -> list[Step]:
    """The first steps of a JSON patch that is refused (422, 409) unless the object is exactly as it was read."""
    return [
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
    ]


async def write(api: Api, resource: Resource, obj: JsonObject, steps: list[Step]) -> JsonObject:
    """Carry ``steps`` out on ``obj`` exactly as it was read. Raises ``ApiError``: 422 or 409 where it changed."""
    metadata = obj["metadata"]
    patch = Patch([*tests(metadata), *steps], "json")
    return await api.patch(resource, metadata["name"], patch, metadata.get("namespace", ""))


def changes_of(place: str, current: Mapping[str, str] | None, changes: Mapping[str, str | None]) -> list[Step]:
    """Steps that set (or with None remove) keys of a map that may not be there, and take away one left empty."""
    steps: list[Step] = []
    removed = {key for key, value in changes.items() if value is None and key in (current or {})}
    added = {key: value for key, value in changes.items() if value is not None}
    if current and not added and removed == set(current):
        return [{"op": "remove", "path": place}]
    if not current and added:
        steps.append({"op": "add", "path": place, "value": {}})
    steps += [{"op": "add", "path": f"{place}/{pointer(key)}", "value": added[key]} for key in sorted(added)]
    return steps + [{"op": "remove", "path": f"{place}/{pointer(key)}"} for key in sorted(removed)]


async def annotate(api: Api, pod: Pod, annotations: Mapping[str, str]) -> JsonObject:
    """Set annotations of this pod and no other of its name. Raises ``KubeError``; a conflict when it is another."""
    body: JsonObject = {"metadata": {"uid": pod.uid, "annotations": dict(annotations)}}
    return await api.patch(PODS, pod.name, Patch(body), pod.namespace)


async def record_result(api: Api, pod: Pod, result: DrainResult) -> JsonObject:
    """Write how the drain ended on the pod."""
    return await annotate(api, pod, encode_result(result))


async def record_drain(api: Api, pod: Pod, record: DrainRecord) -> JsonObject:
    """Write where the drain stands on the pod."""
    return await annotate(api, pod, encode_drain(record))


def label_patch(pod: Pod, labels: Mapping[str, str | None], record: DrainRecord) -> list[Step]:
    """A JSON patch that sets labels (``None`` removes one) and the drain's record in one step, on the pod exactly as
    it was seen: ``test`` on uid and resourceVersion."""
    steps = tests({"uid": pod.uid, "resourceVersion": pod.resource_version})
    if not pod.labels and any(value is not None for value in labels.values()):
        steps.append({"op": "add", "path": "/metadata/labels", "value": {}})
    for key, value in sorted(labels.items()):
        path = f"/metadata/labels/{pointer(key)}"
        if value is not None:
            steps.append({"op": "add", "path": path, "value": value})
        elif key in pod.labels:
            steps.append({"op": "remove", "path": path})
    if not pod.annotations:
        steps.append({"op": "add", "path": "/metadata/annotations", "value": {}})
    for key, value in encode_drain(record).items():
        steps.append({"op": "add", "path": f"/metadata/annotations/{pointer(key)}", "value": value})
    if record.verb == "restore" and DRAIN_RESULT in pod.annotations:
        # What was proven is not true of a pod that serves again.
        steps.append({"op": "remove", "path": f"/metadata/annotations/{pointer(DRAIN_RESULT)}"})
    return steps


async def relabel(api: Api, pod: Pod, labels: Mapping[str, str | None], record: DrainRecord) -> JsonObject:
    """Change labels and record together. Raises ``ApiError`` when the pod is not as it was seen any more."""
    return await api.patch(PODS, pod.name, Patch(label_patch(pod, labels, record), "json"), pod.namespace)


async def end(api: Api, pod: Pod) -> None:
    """DELETE with both preconditions: this pod, exactly as it was last seen."""
    options = Deletion(uid=pod.uid, resource_version=pod.resource_version)
    await api.delete(PODS, pod.name, pod.namespace, options)


def reservations(service: Service) -> dict[str, str]:
    """Drains in flight that count against the floor of ``service``: {pod uid: token}."""
    try:
        found = json.loads(service.annotations.get(RESERVATIONS, "{}"))
    except ValueError:
        return {}
    return {str(uid): str(token) for uid, token in found.items()} if isinstance(found, dict) else {}


async def reserve(api: Api, service: Service, held: Mapping[str, str]) -> JsonObject:
    """Write the reservations of a Service; a conflict when anybody changed it since it was read."""
    value = json.dumps(dict(sorted(held.items()))) if held else None
    body: JsonObject = {"metadata": {"resourceVersion": service.resource_version, "annotations": {RESERVATIONS: value}}}
    return await api.patch(SERVICES, service.name, Patch(body), service.namespace)
