"""Topology hints: which zone or node each endpoint should be used from (k8s.io/endpointslice trafficdist, v1.36).

Only ``spec.trafficDistribution`` makes hints here. The older annotation ``service.kubernetes.io/topology-mode: Auto``
switches that field off, as the real controller has it, and makes no hints of its own: its CPU shares mean nothing in
a lab whose nodes are one machine.
"""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.kube.api import JsonObject

SAME_NODE = "PreferSameNode"
_CLOSE = ("PreferClose", "PreferSameZone", SAME_NODE)
_ANNOTATIONS = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")
"""The first that is there counts (hintsEnabled in endpointslice/utils.go)."""


def distribution(service: JsonObject) -> str:
    """The Service's ``trafficDistribution`` where it is in force, else ""."""
    annotations = service["metadata"].get("annotations") or {}
    mode = next((annotations[name] for name in _ANNOTATIONS if name in annotations), "")
    wanted = service["spec"].get("trafficDistribution")
    return wanted if wanted in _CLOSE and mode not in ("Auto", "auto") else ""


def needs_hints(one: JsonObject, wanted: str) -> bool:
    """Whether a slice that is otherwise right must be written for its hints' sake."""
    if not wanted:
        return any("hints" in endpoint for endpoint in one.get("endpoints") or ())
    return any(_hinted(endpoint) != hints_of(endpoint, wanted) for endpoint in _ready(one))


def with_hints(one: JsonObject, wanted: str) -> JsonObject:
    """The slice with the hints it should have. Endpoints that are not ready keep what they came with."""
    endpoints = []
    for endpoint in one.get("endpoints") or ():
        if not wanted or _is_ready(endpoint):
            hints = hints_of(endpoint, wanted) if wanted else {}
            endpoint = without_hints(endpoint) | ({"hints": hints} if hints else {})
        endpoints.append(endpoint)
    return {**one, "endpoints": endpoints}


def hints_of(endpoint: JsonObject, wanted: str) -> JsonObject:
    """Its own zone, and its own node where that is asked for."""
    hints: JsonObject = {}
    if endpoint.get("zone"):
        hints["forZones"] = [{"name": endpoint["zone"]}]
    if endpoint.get("nodeName") and wanted == SAME_NODE:
        hints["forNodes"] = [{"name": endpoint["nodeName"]}]
    return hints


def without_hints(endpoint: JsonObject) -> JsonObject:
    """The endpoint as the pods and nodes alone make it."""
    return {key: value for key, value in endpoint.items() if key != "hints"}


def _hinted(endpoint: JsonObject) -> JsonObject:
    return {key: value for key, value in (endpoint.get("hints") or {}).items() if value}


def _is_ready(endpoint: JsonObject) -> bool:
    return (endpoint.get("conditions") or {}).get("ready") is True


def _ready(one: JsonObject) -> Iterable[JsonObject]:
    return (endpoint for endpoint in one.get("endpoints") or () if _is_ready(endpoint))
