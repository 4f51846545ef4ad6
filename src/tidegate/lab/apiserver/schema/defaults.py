"""Defaulting: what the API server writes where the client wrote nothing, per kind.

From kubernetes/pkg/apis/*/v1/defaults.go (1.36). No package carries these, so they are written out. Allocation
(clusterIP, nodePort), admission (service account, tolerations) and what a kind's strategy forces at creation
(status) are the server's, not defaults.
"""

from __future__ import annotations

import copy
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from tidegate.lab.apiserver.schema import defaults_pod
from tidegate.lab.apiserver.schema.quantity import canonical

Json = dict[str, Any]
_RBAC = "rbac.authorization.k8s.io"


def apply(kind: str, obj: Json) -> None:
    """Write the defaults of ``kind`` into ``obj``, in place; a kind without any is left as it is."""
    rule = _RULES.get(kind)
    if rule is not None:
        rule(obj)


def _spec(obj: Json) -> Json:
    spec: Json = obj.setdefault("spec", {})
    return spec


def _namespace(obj: Json) -> None:
    metadata = obj.setdefault("metadata", {})
    if metadata.get("name"):
        labels = metadata.get("labels") or {}
        metadata["labels"] = {**labels, "kubernetes.io/metadata.name": metadata["name"]}
    _spec(obj)


def _node(obj: Json) -> None:
    _spec(obj)
    status = obj.get("status") or {}
    for key in ("capacity", "allocatable"):
        if status.get(key):
            status[key] = {name: canonical(value) for name, value in status[key].items()}
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def _service(obj: Json) -> None:
    spec = _spec(obj)
    if spec.get("publishNotReadyAddresses") is False:
        del spec["publishNotReadyAddresses"]
    kind = spec.setdefault("type", "ClusterIP")
    affinity = spec.setdefault("sessionAffinity", "None")
    if affinity == "ClientIP":
        client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        client.setdefault("timeoutSeconds", 10800)
    elif affinity == "None":
        spec.pop("sessionAffinityConfig", None)
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port")
    is_external = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs"))
    if is_external:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def _endpoints(obj: Json) -> None:
    if "subsets" in obj and not obj["subsets"]:
        del obj["subsets"]
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _endpoint_slice(obj: Json) -> None:
    for key in ("endpoints", "ports"):  # lists without omitempty: nothing is written as null
        obj[key] = obj.get(key) or None
    for endpoint in obj.get("endpoints") or ():
        endpoint.setdefault("conditions", {})
    for port in obj.get("ports") or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def _event(obj: Json) -> None:
    """Go writes the fields of an Event out that have no omitempty."""
    for key in ("firstTimestamp", "lastTimestamp", "eventTime"):
        obj.setdefault(key, None)
    for key in ("reportingComponent", "reportingInstance"):
        obj.setdefault(key, "")
    obj.setdefault("source", {})


def _config_map(obj: Json) -> None:
    for key in ("data", "binaryData"):
        if key in obj and not obj[key]:
            del obj[key]


def _secret(obj: Json) -> None:
    obj["type"] = obj.get("type") or "Opaque"
    # stringData is write-only: the registry folds it into data (secret/strategy.go via conversion).
    plain = obj.pop("stringData", None)
    if plain:
        data = obj.get("data") or {}
        obj["data"] = {**data, **{key: b64encode(str(text).encode()).decode() for key, text in plain.items()}}


def _deployment(obj: Json) -> None:
    spec = _spec(obj)
    spec.setdefault("progressDeadlineSeconds", 600)
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("strategy", {})
    strategy["type"] = strategy.get("type") or "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")
    defaults_pod.template(spec)
    obj.setdefault("status", {})


def _replica_set(obj: Json) -> None:
    spec = _spec(obj)
    spec.setdefault("replicas", 1)
    defaults_pod.template(spec)
    obj.setdefault("status", {}).setdefault("replicas", 0)


def _replication_controller(obj: Json) -> None:
    spec = _spec(obj)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        spec.setdefault("selector", dict(labels))
        obj.setdefault("metadata", {}).setdefault("labels", dict(labels))
    _replica_set(obj)


def _stateful_set(obj: Json) -> None:
    spec = _spec(obj)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    spec.setdefault("serviceName", "")
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("updateStrategy", {})
    strategy["type"] = strategy.get("type") or "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")
    for claim in spec.get("volumeClaimTemplates") or ():
        claim |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        _claim(claim)
    defaults_pod.template(spec)
    obj.setdefault("status", {}).setdefault("replicas", 0)
    obj["status"].setdefault("availableReplicas", 0)


def _daemon_set(obj: Json) -> None:
    spec = _spec(obj)
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("updateStrategy", {})
    strategy["type"] = strategy.get("type") or "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", 0)
        rolling.setdefault("maxUnavailable", 1)
    defaults_pod.template(spec)
    counts = ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady")
    for key in counts:
        obj.setdefault("status", {}).setdefault(key, 0)


def _job(obj: Json) -> None:
    spec = _spec(obj)
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 2**31 - 1 if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
    defaults_pod.template(spec)
    labels = spec["template"]["metadata"].get("labels")
    if labels and not obj.setdefault("metadata", {}).get("labels"):
        obj["metadata"]["labels"] = dict(labels)
    obj.setdefault("status", {})


def _cron_job(obj: Json) -> None:
    spec = _spec(obj)
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("failedJobsHistoryLimit", 1)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("suspend", False)
    job = spec.setdefault("jobTemplate", {})
    job.setdefault("metadata", {})
    defaults_pod.template(job.setdefault("spec", {}))
    obj.setdefault("status", {})


_PERCENT_RULE: Json = {"type": "Percent", "value": 100, "periodSeconds": 15}
_SCALING_RULES: dict[str, Json] = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, _PERCENT_RULE],
    },
    "scaleDown": {"selectPolicy": "Max", "policies": [_PERCENT_RULE]},
}
"""Of both directions as soon as one is spoken of (autoscaling/v2 defaults.go)."""


def _autoscaler(obj: Json) -> None:
    spec = _spec(obj)
    spec.setdefault("minReplicas", 1)
    if str(obj.get("apiVersion", "")).endswith("/v1"):
        return
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    if spec.get("behavior") is not None:
        for key, rules in _SCALING_RULES.items():
            spec["behavior"][key] = {**copy.deepcopy(rules), **(spec["behavior"].get(key) or {})}
    obj.setdefault("status", {}).setdefault("desiredReplicas", 0)


def _claim(obj: Json) -> None:
    spec = _spec(obj)
    spec.setdefault("volumeMode", "Filesystem")
    defaults_pod.resource_requirements(spec.setdefault("resources", {}))
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def _volume(obj: Json) -> None:
    spec = _spec(obj)
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    if spec.get("capacity"):
        spec["capacity"] = {name: canonical(value) for name, value in spec["capacity"].items()}
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def _network_policy(obj: Json) -> None:
    spec = _spec(obj)
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _ingress(obj: Json) -> None:
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def _role_binding(obj: Json) -> None:
    obj.setdefault("roleRef", {}).setdefault("apiGroup", _RBAC)
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", _RBAC)


def _quota(obj: Json) -> None:
    spec = _spec(obj)
    if spec.get("hard"):
        spec["hard"] = {name: canonical(value) for name, value in spec["hard"].items()}
    obj.setdefault("status", {})


def _webhooks(obj: Json) -> None:
    for webhook in obj.get("webhooks") or ():
        webhook.setdefault("failurePolicy", "Fail")
        webhook.setdefault("matchPolicy", "Equivalent")
        webhook.setdefault("namespaceSelector", {})
        webhook.setdefault("objectSelector", {})
        webhook.setdefault("timeoutSeconds", 10)
        if obj.get("kind") == "MutatingWebhookConfiguration":
            webhook.setdefault("reinvocationPolicy", "Never")
        for rule in webhook.get("rules") or ():
            rule.setdefault("scope", "*")
        service = (webhook.get("clientConfig") or {}).get("service")
        if service:
            service.setdefault("port", 443)


def _custom_resource_definition(obj: Json) -> None:
    spec = _spec(obj)
    names = spec.setdefault("names", {})
    kind = str(names.get("kind") or "")
    if kind:
        names.setdefault("singular", kind.lower())
        names.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {}).setdefault("strategy", "None")


def _settings(**values: Any) -> Callable[[Json], None]:
    """A rule for kinds whose defaults are plain top-level fields."""

    def rule(obj: Json) -> None:
        for key, value in values.items():
            obj.setdefault(key, value)

    return rule


def _only_spec(obj: Json) -> None:
    _spec(obj)


def _with_status(obj: Json) -> None:
    _spec(obj)
    obj.setdefault("status", {})


_RULES: dict[str, Callable[[Json], None]] = {
    "Pod": defaults_pod.pod,
    "PodTemplate": defaults_pod.template,
    "Namespace": _namespace,
    "Node": _node,
    "Service": _service,
    "Endpoints": _endpoints,
    "EndpointSlice": _endpoint_slice,
    "ConfigMap": _config_map,
    "Event": _event,
    "Secret": _secret,
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "ReplicationController": _replication_controller,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "CronJob": _cron_job,
    "HorizontalPodAutoscaler": _autoscaler,
    "PersistentVolumeClaim": _claim,
    "PersistentVolume": _volume,
    "NetworkPolicy": _network_policy,
    "Ingress": _ingress,
    "RoleBinding": _role_binding,
    "ClusterRoleBinding": _role_binding,
    "ResourceQuota": _quota,
    "PriorityClass": _settings(preemptionPolicy="PreemptLowerPriority"),
    "StorageClass": _settings(reclaimPolicy="Delete", volumeBindingMode="Immediate"),
    "MutatingWebhookConfiguration": _webhooks,
    "ValidatingWebhookConfiguration": _webhooks,
    "CustomResourceDefinition": _custom_resource_definition,
    "PodDisruptionBudget": _with_status,
    "Lease": _only_spec,
}

KINDS = frozenset(_RULES)
"""Kinds that have defaults."""
