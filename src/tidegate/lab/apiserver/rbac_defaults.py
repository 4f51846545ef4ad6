"""The ClusterRoles every cluster has for people: cluster-admin, admin, edit and view.

From plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go (v1.36), of what a lab serves. Each takes in the roles
that carry its label, and admin those of edit, edit those of view.
"""

from __future__ import annotations

from tidegate.kube.api import JsonObject

READ = ["get", "list", "watch"]
WRITE = ["create", "update", "patch", "delete", "deletecollection"]

_CORE = ["replicationcontrollers", "replicationcontrollers/scale", "serviceaccounts", "services"]
_APPS = ["statefulsets", "statefulsets/scale", "daemonsets", "deployments", "deployments/scale", "replicasets"]
_APPS += ["replicasets/scale"]
_STREAMS = ["pods/attach", "pods/proxy", "pods/exec", "pods/portforward"]


def _rule(verbs: list[str], groups: list[str], *resources: str) -> JsonObject:
    return {"verbs": verbs, "apiGroups": groups, "resources": list(resources)}


_VIEW = [
    _rule(READ, [""], "pods", *_CORE, "services/status", "endpoints", "persistentvolumeclaims", "configmaps"),
    _rule(READ, [""], "persistentvolumeclaims/status", "resourcequotas", "pods/status", "resourcequotas/status"),
    _rule(READ, [""], "namespaces/status", "replicationcontrollers/status", "pods/log", "bindings", "namespaces"),
    _rule(READ, ["", "events.k8s.io"], "events"),
    _rule(READ, ["discovery.k8s.io"], "endpointslices"),
    _rule(READ, ["apps"], "controllerrevisions", *_APPS),
    _rule(
        READ, ["apps"], *(f"{plural}/status" for plural in ("statefulsets", "daemonsets", "deployments", "replicasets"))
    ),
    _rule(READ, ["autoscaling"], "horizontalpodautoscalers", "horizontalpodautoscalers/status"),
    _rule(READ, ["batch"], "jobs", "cronjobs", "cronjobs/status", "jobs/status"),
    _rule(READ, ["policy"], "poddisruptionbudgets", "poddisruptionbudgets/status"),
    _rule(READ, ["networking.k8s.io"], "networkpolicies", "ingresses", "ingresses/status"),
]
_EDIT = [
    _rule(READ, [""], *_STREAMS, "secrets", "services/proxy"),
    _rule(["impersonate"], [""], "serviceaccounts"),
    _rule(WRITE, [""], "pods", *_STREAMS),
    _rule(["create"], [""], "pods/eviction", "serviceaccounts/token"),
    _rule(WRITE, [""], *_CORE, "services/proxy", "persistentvolumeclaims", "configmaps", "secrets"),
    _rule(WRITE, ["", "events.k8s.io"], "events"),
    _rule(WRITE, ["apps"], *_APPS, "deployments/rollback"),
    _rule(WRITE, ["autoscaling"], "horizontalpodautoscalers"),
    _rule(WRITE, ["batch"], "jobs", "cronjobs"),
    _rule(WRITE, ["policy"], "poddisruptionbudgets"),
    _rule(WRITE, ["networking.k8s.io"], "networkpolicies", "ingresses"),
    _rule([*READ, *WRITE], ["coordination.k8s.io"], "leases"),
]
_ADMIN = [
    _rule(["create"], ["authorization.k8s.io"], "localsubjectaccessreviews"),
    _rule([*READ, *WRITE], ["rbac.authorization.k8s.io"], "roles", "rolebindings"),
]


def _aggregating(rules: list[JsonObject], *names: str) -> JsonObject:
    selectors = [{"matchLabels": {f"rbac.authorization.k8s.io/aggregate-to-{name}": "true"}} for name in names]
    return {"rules": rules, "aggregationRule": {"clusterRoleSelectors": selectors}}


ROLES: dict[str, JsonObject] = {
    "cluster-admin": {"rules": [_rule(["*"], ["*"], "*"), {"verbs": ["*"], "nonResourceURLs": ["*"]}]},
    "admin": _aggregating([*_ADMIN, *_EDIT, *_VIEW], "admin", "edit", "view"),
    "edit": _aggregating([*_EDIT, *_VIEW], "edit", "view"),
    "view": _aggregating(_VIEW, "view"),
    "system:aggregate-to-admin": {"rules": _ADMIN},
    "system:aggregate-to-edit": {"rules": _EDIT},
    "system:aggregate-to-view": {"rules": _VIEW},
}
"""By name, as far as their rules go; one that somebody creates takes the place of its default."""
