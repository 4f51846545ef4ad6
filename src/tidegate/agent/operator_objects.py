"""The operator and its webhook as plain data: a part each of what ``tidegate install --print`` shows.

The operator always serves the webhook; that API servers call it is said by one object, the configuration. So it is
turned on by applying that, and off by deleting it, and no pod of ours has to be made anew for either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tidegate.agent.roles import LABELS, Manifest, Piece
from tidegate.drain.gating import GRACE_SECONDS, gate_hook
from tidegate.kube.api import MUTATINGWEBHOOKCONFIGURATIONS
from tidegate.model.names import (
    GATE,
    GATE_OFF,
    GATE_ON,
    OPERATOR,
    REPLACE_SLEEP,
    SYSTEM_NAMESPACE,
    WEBHOOK,
    WEBHOOK_SERVICE,
)

WEBHOOK_NAME = f"{WEBHOOK_SERVICE}.{SYSTEM_NAMESPACE}.svc"
"""In its certificate: what API servers ask for (k8s apiserver util/webhook/client.go)."""
WEBHOOK_PORT, HEALTH_PORT, METRICS_PORT = 9443, 8081, 9090
GATE_ONLY_PATH, GATE_AND_SLEEP_PATH = "/gate", "/gate/replace-sleep"
"""The second where the namespace asks for plain sleeps to be replaced: a review does not tell its labels."""
LEFT_ALONE = ("kube-system", "kube-public", "kube-node-lease", SYSTEM_NAMESPACE)
"""Namespaces whose pods are left as they are, whatever labels they bear."""
TIMEOUT_SECONDS = 2
REPLICAS = 2
TLS_FOLDER = "/run/tidegate-tls"
USER = 65532
_NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""On every namespace since 1.22 (k8s core/v1 well_known_labels.go, LabelMetadataName)."""
SEALED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

_WHY_OPERATOR = f"""
Two replicas: one leads (a Lease), both serve the webhook. It has its own gate, so it is told to stop only when no node
sends API servers to it any more; on a node without a holder it is told at once. The pod network, no capability, not
root, nothing of the node: it would be let in at Pod Security level `restricted`. It answers health on {HEALTH_PORT} and
metrics on {METRICS_PORT}.
"""
_WHY_BUDGET = """
A drained node takes one replica at a time. It never keeps a node from being drained for good: with one replica left
that is not ready, the other may go.
"""
_WHY_SERVICE = "Where API servers reach the webhook."
_WHY_WEBHOOK = f"""
Which pods get the gate when they are created. A namespace opts in: kubectl label namespace shop {GATE}={GATE_ON};
{REPLACE_SLEEP}=true on it has preStop hooks that only sleep replaced as well. A pod's own label
{GATE}={GATE_ON} or {GATE_OFF} goes before its namespace's. `failurePolicy: Ignore`:
while nobody answers within {TIMEOUT_SECONDS} s pods are created without a gate, and `tidegate status` lists them.
It is asked about nothing but new pods: no eviction, no deletion ever waits for it. The operator writes `caBundle`, and
no other field.
"""


def operator(image: str, env: Iterable[tuple[str, str]] = ()) -> list[Piece]:
    """What runs, and its budget. Roles are ``roles.operator``'s. ``env``: variables beside the usual ones, or in their
    place."""
    return [Piece("operator", _deployment(image, dict(env)), _WHY_OPERATOR), Piece("operator", _budget(), _WHY_BUDGET)]


def webhook() -> list[Piece]:
    """That API servers call it: last of all."""
    return [Piece("webhook", _service(), _WHY_SERVICE), Piece("webhook", _configuration(), _WHY_WEBHOOK)]


def _labels() -> dict[str, str]:
    return {**LABELS, "app.kubernetes.io/component": "operator"}


def _deployment(image: str, env: Mapping[str, str]) -> Manifest:
    ports = (("webhook", WEBHOOK_PORT), ("health", HEALTH_PORT), ("metrics", METRICS_PORT))
    container = {
        "name": "operator",
        "image": image,
        "command": ["tidegate", "operator"],
        "env": [
            {"name": "TIDEGATE_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *({"name": name, "value": value} for name, value in {"TIDEGATE_TLS_DIR": TLS_FOLDER, **env}.items()),
        ],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": HEALTH_PORT}, "periodSeconds": 5},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": HEALTH_PORT},
            "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
        },
        "lifecycle": {"preStop": gate_hook("operator")},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "securityContext": {**SEALED, "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER},
        "volumeMounts": [{"name": "tls", "mountPath": TLS_FOLDER}, {"name": "scratch", "mountPath": "/tmp"}],
    }  # fmt: skip
    spec = {
        "serviceAccountName": OPERATOR,
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "topologySpreadConstraints": [_spread("kubernetes.io/hostname"), _spread("topology.kubernetes.io/zone")],
        "securityContext": {"fsGroup": USER},
        "containers": [container],
        "volumes": [
            {"name": "tls", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "64Mi"}},
        ],
    }
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS_PORT)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": OPERATOR, "namespace": SYSTEM_NAMESPACE, "labels": _labels()},
        "spec": {
            "replicas": REPLICAS,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": _labels()},
            "template": {"metadata": {"labels": _labels(), "annotations": scraped}, "spec": spec},
        },
    }


def _spread(over: str) -> Manifest:
    """Where it can be: a cluster of one node or one zone has both replicas there."""
    return {
        "maxSkew": 1, "topologyKey": over, "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": _labels()},
    }  # fmt: skip


def _budget() -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": OPERATOR, "namespace": SYSTEM_NAMESPACE, "labels": _labels()},
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": _labels()},
        },
    }


def _service() -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": WEBHOOK_SERVICE, "namespace": SYSTEM_NAMESPACE, "labels": _labels()},
        "spec": {
            "selector": _labels(),
            "ports": [{"name": "webhook", "port": 443, "targetPort": WEBHOOK_PORT, "protocol": "TCP"}],
        },
    }


def _configuration() -> Manifest:
    """One webhook for each case: of a webhook's selectors both must match, and either of two labels opts in."""
    entries = [
        _webhook(is_of_namespace, is_replacing) for is_of_namespace in (True, False) for is_replacing in (False, True)
    ]
    return {
        "apiVersion": MUTATINGWEBHOOKCONFIGURATIONS.api_version,
        "kind": MUTATINGWEBHOOKCONFIGURATIONS.kind,
        "metadata": {"name": WEBHOOK, "labels": _labels()},
        "webhooks": entries,
    }


def _webhook(is_of_namespace: bool, is_replacing: bool) -> Manifest:
    """``is_of_namespace``: the namespace opted in and the pod did not opt out; else the pod alone opted in."""
    place = [
        _match(_NAMESPACE_NAME, "NotIn", *LEFT_ALONE),
        _match(GATE, "In" if is_of_namespace else "NotIn", GATE_ON),
        _match(REPLACE_SLEEP, "In" if is_replacing else "NotIn", "true"),
    ]
    pods = [_match(GATE, "NotIn", GATE_OFF) if is_of_namespace else _match(GATE, "In", GATE_ON)]
    words = ["gate", *([] if is_of_namespace else ["pod"]), *(["sleep"] if is_replacing else [])]
    path = GATE_AND_SLEEP_PATH if is_replacing else GATE_ONLY_PATH
    return {
        "name": f"{'-'.join(words)}.tidegate.dev",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "service": {"namespace": SYSTEM_NAMESPACE, "name": WEBHOOK_SERVICE, "path": path, "port": 443}
        },
        "rules": [
            {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
             "scope": "Namespaced"}
        ],
        "namespaceSelector": {"matchExpressions": place},
        "objectSelector": {"matchExpressions": pods},
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT_SECONDS,
    }  # fmt: skip


def _match(key: str, operator: str, *values: str) -> dict[str, Any]:
    """``NotIn`` is true of what has no such label."""
    return {"key": key, "operator": operator, "values": list(values)}
