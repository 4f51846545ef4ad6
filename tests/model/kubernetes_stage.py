"""Short ways to make Kubernetes nouns, through their JSON, for the tests of the core."""

from __future__ import annotations

from typing import Any

from tidegate.model import endpointslice
from tidegate.model import pod as pods
from tidegate.model import service as services
from tidegate.model import workload as workloads
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.model.workload import Workload

ADDRESSES = {"echo-1": "10.244.1.11", "echo-2": "10.244.1.12", "echo-9": "10.244.1.19", None: "10.244.1.11"}


def pod(
    name: str = "echo-1",
    labels: dict[str, str] | None = None,
    deleted: bool = False,
    ip: str = "10.244.1.11",
    owner: bool = False,
    **spec: Any,
) -> Pod:
    meta: dict[str, Any] = {
        "name": name,
        "namespace": "demo",
        "uid": f"uid-{name}",
        "labels": labels or {"app": "echo"},
    }
    if deleted:
        meta |= {"deletionTimestamp": "2026-11-21T10:01:00Z", "deletionGracePeriodSeconds": 60}
    if owner:
        meta["ownerReferences"] = [{"kind": "ReplicaSet", "name": "echo-5d", "uid": "uid-rs", "controller": True}]
    containers = [{"name": "app", "image": "tidegate/echo:v1", "ports": [{"containerPort": 8080}]}]
    status = {"podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}]}
    return pods.decode(
        {
            "metadata": meta,
            "spec": {"nodeName": "node-1", "containers": containers, **spec},
            "status": {"phase": "Running", **(status if ip else {})},
        }
    )


def service(name: str = "echo", selector: dict[str, str] | None = None, **spec: Any) -> Service:
    return services.decode(
        {
            "metadata": {"name": name, "namespace": "demo"},
            "spec": {
                "selector": selector or {"app": "echo"},
                "clusterIP": "10.96.1.1",
                "ports": [{"port": 80}],
                **spec,
            },
        }
    )


def slice_of(
    *entries: tuple, name: str = "echo-x7k", service_name: str = "echo", port_name: str = "http", family: str = "IPv4"
) -> EndpointSlice:
    """A slice of (pod or None, conditions[, node[, address]]) entries."""
    listed = []
    for pod_name, conditions, *rest in entries:
        node = rest[0] if rest else "node-1"
        address = rest[1] if len(rest) > 1 else ADDRESSES[pod_name]
        entry: dict[str, Any] = {"addresses": [address], "conditions": conditions, "nodeName": node}
        if pod_name:
            entry["targetRef"] = {"kind": "Pod", "name": pod_name, "uid": f"uid-{pod_name}"}
        if family == "IPv6":
            entry["addresses"] = ["fd00::12"]
        listed.append(entry)
    return endpointslice.decode(
        {
            "metadata": {"name": name, "namespace": "demo", "labels": {"kubernetes.io/service-name": service_name}},
            "addressType": family,
            "endpoints": listed,
            "ports": [{"name": port_name, "port": 8080, "protocol": "TCP"}],
        }
    )


def workload(kind: str = "Deployment", strategy: str = "", replicas: int = 1, surge: int | None = None) -> Workload:
    field = "updateStrategy" if kind in ("StatefulSet", "DaemonSet") else "strategy"
    spec: dict[str, Any] = {"replicas": replicas, "selector": {"matchLabels": {"app": "echo"}}}
    if strategy or surge is not None:
        spec[field] = {"type": strategy, "rollingUpdate": {"maxSurge": surge}}
    return workloads.decode({"kind": kind, "metadata": {"name": "echo", "namespace": "demo"}, "spec": spec})
