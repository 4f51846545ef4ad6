"""Validation: ``validate`` says what is wrong with an object, ``invalid`` makes the 422 of it.

The core set: names, labels, required fields, selectors, immutables, ports, duplicates, quantities, in the real
server's wording and order (kubectl prints the causes as they come). What is not checked is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tidegate.kube.api import Resource
from tidegate.kube.errors import ApiError
from tidegate.lab.apiserver.schema import (
    causes,
    metadata,
    names,
    validation_autoscaling,
    validation_jobs,
    validation_network,
    validation_pod,
    validation_policies,
    validation_webhooks,
    validation_workloads,
)
from tidegate.lab.apiserver.schema.causes import Cause

__all__ = ["Cause", "invalid", "validate"]

Json = Mapping[str, Any]
Rule = Callable[[Json, Json | None], list[Cause]]

_CONTENT_MAX = 1024 * 1024  # MaxSecretSize; ConfigMaps have the same


def validate(kind: str, obj: Json, old: Json | None) -> list[Cause]:
    """What is wrong with a defaulted object of a kind; ``old`` is what an update replaces, None at creation."""
    meta = obj.get("metadata") or {}
    found = metadata.validate(kind, meta)
    if old is not None:
        found += metadata.validate_update(meta, old.get("metadata") or {})
    rule = _RULES.get(kind)
    return found if rule is None else [*found, *rule(obj, old)]


def invalid(resource: Resource, name: str, found: list[Cause]) -> ApiError:
    """``Deployment.apps "x" is invalid: ...`` (api/errors NewInvalid): 422 with every cause in the details."""
    texts = list(dict.fromkeys(cause.text for cause in found))
    summary = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    qualified = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    message = f'{qualified} "{name}" is invalid: {summary}'
    details: dict[str, Any] = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.kind
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in found]
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "Invalid",
        "details": details,
        "code": 422,
    }
    return ApiError(422, "Invalid", message, status)


def _config_map(obj: Json, old: Json | None) -> list[Cause]:
    found: list[Cause] = []
    size = 0
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    for field, entries in (("data", data), ("binaryData", binary)):
        for key, value in sorted(entries.items()):
            found += [causes.invalid(f"{field}[{key}]", key, text) for text in names.config_key(key)]
            size += len(str(value))
    if size > _CONTENT_MAX:
        found.append(causes.too_long("", _CONTENT_MAX))
    return found + _frozen_content(obj, old, ("data", "binaryData"))


def _frozen_content(obj: Json, old: Json | None, fields: tuple[str, ...]) -> list[Cause]:
    """``immutable: true`` fixes the content and itself."""
    if old is None or not old.get("immutable"):
        return []
    text = "field is immutable when `immutable` is set"
    changed = [field for field in fields if (obj.get(field) or {}) != (old.get(field) or {})]
    if not obj.get("immutable"):
        changed.insert(0, "immutable")
    return [causes.forbidden(field, text) for field in changed]


_SECRET_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _secret(obj: Json, old: Json | None) -> list[Cause]:
    data = obj.get("data") or {}
    found: list[Cause] = []
    for key in sorted(data):
        found += [causes.invalid(f"data[{key}]", key, text) for text in names.config_key(key)]
    if sum(len(str(value)) * 3 // 4 for value in data.values()) > _CONTENT_MAX:
        found.append(causes.too_long("data", _CONTENT_MAX))
    for key in _SECRET_KEYS.get(str(obj.get("type")), ()):
        if key not in data:
            found.append(causes.required(f"data[{key}]"))
    if old is not None:
        found += causes.unchanged("type", obj.get("type"), old.get("type"))
    return found + _frozen_content(obj, old, ("data",))


def _node(obj: Json, old: Json | None) -> list[Cause]:
    found: list[Cause] = []
    seen: set[tuple[Any, Any]] = set()
    effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
    for index, taint in enumerate((obj.get("spec") or {}).get("taints") or ()):
        path, key = f"metadata.taints[{index}]", str(taint.get("key") or "")
        found += [causes.invalid(f"{path}.key", key, text) for text in names.qualified_name(key)]
        found += causes.one_of(f"{path}.effect", taint.get("effect"), effects)
        pair = (key, taint.get("effect"))
        if pair in seen:
            found.append(causes.duplicate(path, dict(taint)))
        seen.add(pair)
    return found


def _lease(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    found: list[Cause] = []
    seconds = spec.get("leaseDurationSeconds")
    if isinstance(seconds, int) and seconds <= 0:
        found.append(causes.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    return found + causes.non_negative("spec.leaseTransitions", spec.get("leaseTransitions"))


def _event(obj: Json, old: Json | None) -> list[Cause]:
    involved = (obj.get("involvedObject") or {}).get("namespace") or ""
    own = (obj.get("metadata") or {}).get("namespace") or ""
    if involved == own or (not involved and own == "default"):
        return []
    return [causes.invalid("involvedObject.namespace", involved, "does not match event.namespace")]


def _role(obj: Json, old: Json | None) -> list[Cause]:
    found: list[Cause] = []
    for index, rule in enumerate(obj.get("rules") or ()):
        path = f"rules[{index}]"
        if not rule.get("verbs"):
            found.append(causes.required(f"{path}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            continue
        if not rule.get("apiGroups"):
            found.append(causes.required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            found.append(causes.required(f"{path}.resources", "resource rules must supply at least one resource"))
    return found


def _role_binding(obj: Json, old: Json | None) -> list[Cause]:
    role = obj.get("roleRef") or {}
    found = causes.one_of("roleRef.kind", role.get("kind"), ("ClusterRole", "Role"))
    if not role.get("name"):
        found.append(causes.required("roleRef.name"))
    for index, subject in enumerate(obj.get("subjects") or ()):
        if not subject.get("name"):
            found.append(causes.required(f"subjects[{index}].name"))
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            found.append(causes.required(f"subjects[{index}].namespace"))
    if old is not None and role != old.get("roleRef"):
        found.append(causes.invalid("roleRef", role, "cannot change roleRef"))
    return found


def _priority_class(obj: Json, old: Json | None) -> list[Cause]:
    value = obj.get("value") or 0
    found: list[Cause] = []
    if value > 10**9 and not str(obj["metadata"].get("name")).startswith("system-"):
        text = f"maximum allowed value of a user defined priority is {10**9}"
        found.append(causes.forbidden("value", text))
    if old is not None and value != (old.get("value") or 0):
        found.append(causes.forbidden("value", "may not be changed in an update."))
    return found


def _custom_resource_definition(obj: Json, old: Json | None) -> list[Cause]:
    """Its name alone; the rest is ``custom.definition_checks``'."""
    spec = obj.get("spec") or {}
    name = str(obj["metadata"].get("name") or "")
    if old is not None or name == f"{(spec.get('names') or {}).get('plural') or ''}.{spec.get('group') or ''}":
        return []
    return [causes.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')]


_RULES: dict[str, Rule] = {
    "Pod": validation_pod.pod,
    "Deployment": validation_workloads.deployment,
    "ReplicaSet": validation_workloads.replica_set,
    "StatefulSet": validation_workloads.stateful_set,
    "DaemonSet": validation_workloads.daemon_set,
    "Job": validation_jobs.job,
    "CronJob": validation_workloads.cron_job,
    "HorizontalPodAutoscaler": validation_autoscaling.autoscaler,
    "PodDisruptionBudget": validation_workloads.disruption_budget,
    "Service": validation_network.service,
    "EndpointSlice": validation_network.endpoint_slice,
    "Ingress": validation_network.ingress,
    "NetworkPolicy": validation_policies.network_policy,
    "ConfigMap": _config_map,
    "Secret": _secret,
    "Node": _node,
    "Lease": _lease,
    "Event": _event,
    "Role": _role,
    "ClusterRole": _role,
    "RoleBinding": _role_binding,
    "ClusterRoleBinding": _role_binding,
    "PriorityClass": _priority_class,
    "MutatingWebhookConfiguration": validation_webhooks.configuration,
    "ValidatingWebhookConfiguration": validation_webhooks.configuration,
    "CustomResourceDefinition": _custom_resource_definition,
}
