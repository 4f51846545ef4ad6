"""The CustomResourceDefinitions of ``tidegate.dev/v1alpha1``: Release, Drain, Observer.

Release.spec is the wire form of ``release/spec.py`` and .status that of ``release/record.py`` and the conditions: both
are drawn from the structs, so that a field has one home. The rules in CEL are those of ``spec.decode_spec``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.kube.api import CUSTOMRESOURCEDEFINITIONS, DRAINS, OBSERVERS, RELEASES, JsonObject, Resource
from tidegate.observers.config import ObserverSpec
from tidegate.operator.crd_texts import DRAIN, OBSERVER, RELEASE
from tidegate.operator.drain_object import DrainSpec, DrainStatus
from tidegate.operator.schema import Schema, schema_of
from tidegate.release.record import Status
from tidegate.release.spec import Spec

CATEGORIES = ("tidegate",)
CONDITIONS: Schema = {
    "description": "What holds now, in Kubernetes' form: kubectl wait looks at them.",
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": {
        "type": "object",
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": {"type": "string", "maxLength": 316, "description": "What it is about."},
            "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
            "observedGeneration": {
                "type": "integer", "format": "int64", "minimum": 0,
                "description": "Of the spec that it is about.",
            },
            "lastTransitionTime": {
                "type": "string", "format": "date-time", "description": "Since when the status is what it is.",
            },
            "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "description": "Why, in one word."},
            "message": {"type": "string", "maxLength": 32768, "description": "Why, in a sentence."},
        },
    },
}  # fmt: skip


def manifests() -> list[JsonObject]:
    """The three definitions, in the order of their names."""
    return [_drain(), _observer(), _release()]


def _release() -> JsonObject:
    status = schema_of(Status, RELEASE, has_defaults=False)
    status["properties"] |= {
        "conditions": CONDITIONS,
        "observedGeneration": {
            "type": "integer", "format": "int64", "description": "The generation of the spec that this is about.",
        },
        "ready": {"type": "string", "description": "Ready pods of the revision that comes, of how many."},
    }  # fmt: skip
    columns = (
        _column("Workload", ".spec.workload", "The Deployment."),
        _column("Strategy", ".spec.strategy", "How it is released."),
        _column("Phase", ".status.phase", "How far it is."),
        _column("Revision", ".status.revision", "The revision that comes, or came."),
        _column("Ready", ".status.ready", "Its ready pods."),
        _column("Reason", ".status.reason", "Why it waits.", priority=1),
        _AGE,
    )
    root = _root(schema_of(Spec, RELEASE), status, "Brings a Deployment from one revision to another, verified.")
    return _definition(RELEASES, root, columns, short_names=("rel",))


def _drain() -> JsonObject:
    columns = (
        _column("Pod", ".spec.pod", "Which pod was retired."),
        _column("Verb", ".spec.verb", "By what."),
        _column("Result", ".status.result", "How it ended."),
        _column("Seconds", ".status.seconds", "From the cut to the conclusion.", kind="number"),
        _column("Reason", ".status.reason", "Why it is not verified.", priority=1),
        _AGE,
    )
    spec, status = schema_of(DrainSpec, DRAIN, has_defaults=False), schema_of(DrainStatus, DRAIN, has_defaults=False)
    root = _root(spec, status, "The evidence of one retirement: who let go of the pod, and when.")
    return _definition(DRAINS, root, columns, has_status=False)


def _observer() -> JsonObject:
    columns = (
        _column("Kind", ".spec.kind", "Which program it is."),
        _column("Policy", ".spec.policy", "Whether drains wait for it."),
        _column("Accepted", '.status.conditions[?(@.type=="Accepted")].status', "Whether it is asked."),
        _AGE,
    )
    status: Schema = {
        "type": "object",
        "properties": {"conditions": CONDITIONS},
        "description": "What became of it.",
    }
    root = _root(
        schema_of(ObserverSpec, OBSERVER),
        status,
        "Who else holds a copy of the endpoints and is asked before a pod ends.",
    )
    # Names and limits of the name are all that a definition may say of metadata.
    name = {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
    root["properties"]["metadata"] = {"type": "object", "properties": {"name": name}}
    return _definition(OBSERVERS, root, columns)


def _column(name: str, path: str, text: str, kind: str = "string", priority: int = 0) -> JsonObject:
    found: JsonObject = {"name": name, "type": kind, "jsonPath": path, "description": text}
    return {**found, "priority": priority} if priority else found


_AGE: Mapping[str, Any] = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def _root(spec: Schema, status: Schema, text: str) -> Schema:
    return {
        "description": text,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }


def _definition(
    resource: Resource,
    root: Schema,
    columns: tuple[Mapping[str, Any], ...],
    *,
    short_names: tuple[str, ...] = (),
    has_status: bool = True,
) -> JsonObject:
    names: JsonObject = {
        "plural": resource.plural,
        "singular": resource.kind.lower(),
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
        "categories": list(CATEGORIES),
    }
    if short_names:
        names["shortNames"] = list(short_names)
    version: JsonObject = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": root},
        "additionalPrinterColumns": [dict(one) for one in columns],
    }
    if has_status:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": CUSTOMRESOURCEDEFINITIONS.api_version,
        "kind": CUSTOMRESOURCEDEFINITIONS.kind,
        "metadata": {"name": f"{resource.plural}.{resource.group}"},
        "spec": {
            "group": resource.group,
            "names": names,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [version],
        },
    }
