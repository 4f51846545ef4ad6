"""Which webhooks a write has to pass: rules, selectors and matchPolicy (pure).

As apiserver pkg/admission/plugin/webhook: generic/webhook.go (ShouldCallHook), predicates/{rules,namespace,object}.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.kube.exchange import Request
from tidegate.lab.apiserver.registry import Registry, Row
from tidegate.lab.apiserver.schema import validation_selectors

CREATE, UPDATE, DELETE, CONNECT = "CREATE", "UPDATE", "DELETE", "CONNECT"
GROUP = "admissionregistration.k8s.io"
_EXEMPT = (
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
)

CONNECTED = ("attach", "exec", "portforward", "proxy")
"""Subresources that are connected to, whatever the method."""


def connection(request: Request) -> JsonObject:
    """The options of a connection, as they come in its query (PodExecOptions and the like)."""
    found: JsonObject = {}
    for name in ("stdin", "stdout", "stderr", "tty"):
        if request.param(name) in ("true", "1"):
            found[name] = True
    for name in ("container", "path"):
        if request.param(name):
            found[name] = request.param(name)
    if request.params("command"):
        found["command"] = request.params("command")
    if request.params("ports"):
        found["ports"] = [int(one) for text in request.params("ports") for one in text.split(",") if one.isdigit()]
    return found


@dataclass(frozen=True, slots=True)
class Asked:
    """One write as admission sees it. Objects are as stored, ``old`` read-only; ``version`` is the old one's."""

    row: Row
    operation: str
    namespace: str
    name: str
    object: JsonObject | None
    old: JsonObject | None = None
    subresource: str = ""
    options: JsonObject | None = None
    is_dry_run: bool = False
    version: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        """What an answer holds for: this change of this version of this object."""
        resource = self.row.resource
        place = (resource.group, resource.version, resource.plural, self.subresource, self.namespace, self.name)
        return (self.operation, *place, self.version)

    @property
    def is_exempt(self) -> bool:
        """Webhooks are never asked about what says which webhooks there are."""
        return self.row.resource.group == GROUP and self.row.kind in _EXEMPT

    def holding(self, obj: JsonObject) -> Asked:
        return replace(self, object=obj)


@dataclass(frozen=True, slots=True)
class Hook:
    """One entry of a configuration. ``webhook`` is read-only and defaulted."""

    configuration: str
    index: int
    webhook: JsonObject

    @property
    def name(self) -> str:
        return str(self.webhook["name"])

    @property
    def key(self) -> tuple[str, int]:
        return self.configuration, self.index

    @property
    def fails_open(self) -> bool:
        return bool(self.webhook.get("failurePolicy") == "Ignore")

    @property
    def timeout_seconds(self) -> int:
        return int(self.webhook.get("timeoutSeconds") or 10)

    @property
    def has_side_effects(self) -> bool:
        """In a dry run."""
        return self.webhook.get("sideEffects") not in ("None", "NoneOnDryRun")


def matched_row(hook: Hook, asked: Asked, registry: Registry, namespaces: dict[str, JsonObject]) -> Row | None:
    """The row as which ``hook`` wants to see this write, None where it does not want to at all.

    ``namespaces`` are the labels of each. Raises ``KeyError`` for a namespace that is not there.
    """
    webhook = hook.webhook
    if not _selects_object(webhook.get("objectSelector") or {}, asked):
        return None
    found = _ruled(webhook, asked, registry)
    if found is None or not _selects_namespace(webhook.get("namespaceSelector") or {}, asked, namespaces):
        return None
    return found


def _ruled(webhook: JsonObject, asked: Asked, registry: Registry) -> Row | None:
    rules = webhook.get("rules") or []
    if any(_rules(rule, asked, asked.row) for rule in rules):
        return asked.row
    if webhook.get("matchPolicy") == "Exact":
        return None
    others = [row for row in registry.rows if row.stored is asked.row.stored and row is not asked.row]
    return next((row for rule in rules for row in others if _rules(rule, asked, row)), None)


def _rules(rule: JsonObject, asked: Asked, row: Row) -> bool:
    resource = row.resource
    operations = rule.get("operations") or []
    return (
        _has(rule.get("apiGroups") or [], resource.group)
        and _has(rule.get("apiVersions") or [], resource.version)
        and _has(operations, asked.operation)
        and any(_names(text, resource.plural, asked.subresource) for text in rule.get("resources") or [])
        and _is_in_scope(rule.get("scope") or "*", row, asked)
    )


def _has(items: list[str], wanted: str) -> bool:
    return "*" in items or wanted in items


def _names(text: str, plural: str, subresource: str) -> bool:
    resource, _, sub = text.partition("/")
    return resource in ("*", plural) and sub in ("*", subresource)


def _is_namespace(row: Row) -> bool:
    return row.resource.plural == "namespaces" and not row.resource.group


def _is_in_scope(scope: str, row: Row, asked: Asked) -> bool:
    is_cluster = _is_namespace(row) or not asked.namespace
    return scope == "*" or (scope == "Cluster") == is_cluster


def _selects_object(selector: JsonObject, asked: Asked) -> bool:
    if validation_selectors.is_empty(selector):
        return True
    return any(
        obj is not None and validation_selectors.matches(selector, (obj.get("metadata") or {}).get("labels") or {})
        for obj in (asked.object, asked.old)
    )


def _selects_namespace(selector: JsonObject, asked: Asked, namespaces: dict[str, JsonObject]) -> bool:
    is_namespace = _is_namespace(asked.row)
    if validation_selectors.is_empty(selector) or (not asked.namespace and not is_namespace):
        return True
    if is_namespace and not asked.subresource and asked.operation in (CREATE, UPDATE) and asked.object is not None:
        labels = (asked.object.get("metadata") or {}).get("labels") or {}
    else:
        labels = namespaces[asked.namespace]
    return validation_selectors.matches(selector, labels)
