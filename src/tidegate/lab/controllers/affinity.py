"""Which nodes a pod asks for: nodeSelector and required node affinity, as scheduler and DaemonSets read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.labels import labels_of, matches

NAME_FIELD = "metadata.name"


def fits_selectors(pod: JsonObject, node: JsonObject) -> bool:
    """True for a node with the pod's nodeSelector that satisfies one of its required terms."""
    spec, labels = pod["spec"], labels_of(node)
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    required = _required(spec)
    if required is None:
        return True
    return any(_fits_term(term, node) for term in required.get("nodeSelectorTerms") or ())


def _required(spec: JsonObject) -> JsonObject | None:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    found: JsonObject | None = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return found


def _fits_term(term: Mapping[str, Any], node: JsonObject) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    name = {NAME_FIELD: node["metadata"]["name"]}
    return matches({"matchExpressions": expressions}, labels_of(node)) and matches({"matchExpressions": fields}, name)


def bound_for(spec: JsonObject, node: str) -> JsonObject:
    """A pod spec for one node by name: the required terms are replaced (ReplaceDaemonSetPodNodeNameNodeAffinity)."""
    term = {"matchFields": [{"key": NAME_FIELD, "operator": "In", "values": [node]}]}
    affinity = spec.get("affinity") or {}
    near = affinity.get("nodeAffinity") or {}
    required = {**(_required(spec) or {}), "nodeSelectorTerms": [term]}
    near = {**near, "requiredDuringSchedulingIgnoredDuringExecution": required}
    return {**spec, "affinity": {**affinity, "nodeAffinity": near}}


def target_node(pod: JsonObject) -> str:
    """The node a pod is on, or meant for by name; "" when neither is said."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    for term in (_required(spec) or {}).get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field["key"] == NAME_FIELD and field["operator"] == "In" and len(field.get("values") or ()) == 1:
                return str(field["values"][0])
    return ""
