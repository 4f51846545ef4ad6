"""Objects as a real API server shows them, for benchmarks that need their size and shape. Pure."""

from __future__ import annotations

from tidegate.kube.api import JsonObject

_AT = "2026-11-21T10:00:00Z"


def _managed(manager: str, fields: JsonObject, subresource: str = "") -> JsonObject:
    entry = {"manager": manager, "operation": "Update", "apiVersion": "v1", "time": _AT, "fieldsType": "FieldsV1"}
    return {**entry, "fieldsV1": fields, **({"subresource": subresource} if subresource else {})}


def _owned(*names: str) -> JsonObject:
    return {f"f:{name}": {} for name in names}


_SPEC_FIELDS: JsonObject = {
    "f:metadata": {
        "f:generateName": {},
        "f:labels": {".": {}, **_owned("app", "pod-template-hash")},
        "f:ownerReferences": {".": {}, 'k:{"uid":"4a1f8f0e-7a7e-4f43-9c55-3d2f7f7b2f11"}': {}},
    },
    "f:spec": {
        'f:containers': {
            'k:{"name":"app"}': {
                ".": {}, **_owned("env", "image", "imagePullPolicy", "name", "resources", "terminationMessagePath"),
                "f:ports": {".": {}, 'k:{"containerPort":8080,"protocol":"TCP"}': {".": {}, **_owned("name")}},
                "f:readinessProbe": {".": {}, "f:httpGet": {".": {}, **_owned("path", "port", "scheme")},
                                     **_owned("failureThreshold", "periodSeconds", "successThreshold")},
            },
        },
        **_owned("dnsPolicy", "enableServiceLinks", "restartPolicy", "schedulerName", "securityContext"),
    },
}  # fmt: skip
_STATUS_FIELDS: JsonObject = {
    "f:status": {
        "f:conditions": {
            f'k:{{"type":"{kind}"}}': {".": {}, **_owned("lastProbeTime", "lastTransitionTime", "status", "type")}
            for kind in ("ContainersReady", "Initialized", "PodReadyToStartContainers", "Ready")
        },
        **_owned("containerStatuses", "hostIP", "hostIPs", "phase", "podIP", "podIPs", "startTime"),
    }
}

_CONTAINER: JsonObject = {
    "name": "app",
    "image": "registry.example/team/app:1.2.3",
    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
    "env": [{"name": "LEVEL", "value": "info"}],
    "resources": {"limits": {"memory": "128Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
    "volumeMounts": [
        {"name": "kube-api-access", "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    ],
    "readinessProbe": {
        "httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 1,
        "successThreshold": 1,
        "failureThreshold": 3,
    },
    "lifecycle": {"preStop": {"httpGet": {"path": "/gate/app", "port": 15299, "scheme": "HTTP"}}},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "imagePullPolicy": "IfNotPresent",
}


def _uid(index: int) -> str:
    return f"00000000-0000-4000-8000-{index:012d}"


def running_pod(index: int) -> JsonObject:
    """A running pod of a Deployment, with managedFields: about 4 KB of JSON."""
    name, address = f"app-7d4b9c6f5-{index:05d}", f"10.244.{index // 250 % 250}.{index % 250}"
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": _AT, "observedGeneration": 1}
        for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-7d4b9c6f5", "uid": _uid(1)}
    running = {"state": {"running": {"startedAt": _AT}}, "lastState": {}, "ready": True, "restartCount": 0}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "generateName": "app-7d4b9c6f5-",
            "namespace": "default",
            "uid": _uid(index),
            "resourceVersion": str(100_000 + index),
            "generation": 1,
            "creationTimestamp": _AT,
            "labels": {"app": "app", "pod-template-hash": "7d4b9c6f5"},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
            "managedFields": [
                _managed("kube-controller-manager", _SPEC_FIELDS),
                _managed("kubelet", _STATUS_FIELDS, "status"),
            ],
        },
        "spec": {
            "volumes": [{"name": "kube-api-access", "projected": {"sources": [], "defaultMode": 420}}],
            "containers": [_CONTAINER],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 60,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "nodeName": "node-1",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
            "priority": 0,
            "enableServiceLinks": True,
        },
        "status": {
            "observedGeneration": 1,
            "phase": "Running",
            "conditions": conditions,
            "hostIP": "10.0.0.11",
            "hostIPs": [{"ip": "10.0.0.11"}],
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": _AT,
            "containerStatuses": [
                {"name": "app", **running, "image": _CONTAINER["image"], "imageID": "", "containerID": f"c://{index}"}
            ],
            "qosClass": "Burstable",
        },
    }


def endpoint_slice(index: int) -> JsonObject:
    """An EndpointSlice of five endpoints."""
    endpoints = [
        {
            "addresses": [f"10.244.{index % 250}.{number}"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": f"app-{index}-{number}", "uid": _uid(number)},
            "nodeName": f"node-{number % 3 + 1}",
        }
        for number in range(5)
    ]
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": f"app-{index:05d}",
            "namespace": "default",
            "uid": _uid(index),
            "resourceVersion": str(100_000 + index),
            "generation": 7,
            "creationTimestamp": _AT,
            "labels": {
                "app": "app",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": "app",
            },
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Service", "name": "app", "uid": _uid(2), "controller": True}
            ],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
