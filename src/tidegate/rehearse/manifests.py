"""The objects a row needs, as a user would write them: nothing is injected, the hook is in the template."""

from __future__ import annotations

from typing import Any

from tidegate.kube.api import JsonObject, Patch
from tidegate.rehearse.settings import Row, Settings

NAME = "echo"
"""Name of the Deployment, the Service, the container and the ``app`` label."""

PORT = 8080
"""The Service port: above 1024, so that a lab node can listen on the ClusterIP without root."""
TARGET_PORT = 8080
GATE_PORT = 15299
"""Where the node's holder answers preStop calls; the host stays empty (design §2, Pod Security: facts on the gate)."""

GATE_GRACE_SECONDS = 60
"""The gate's clock is the grace period; 30 s would leave a lagging node little room (design §2, gate mode)."""

OLD, NEW = "v1", "v2"


def image(version: str) -> str:
    """The demo workload's image; its tag is the version it answers with."""
    return f"tidegate/echo:{version}"


def namespace(row: Row) -> JsonObject:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": row.namespace}}


def service(row: Row) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": row.namespace},
        "spec": {
            "selector": {"app": NAME},
            "ports": [{"name": "http", "port": PORT, "targetPort": TARGET_PORT, "protocol": "TCP"}],
        },
    }


def hook(row: Row) -> JsonObject | None:
    """The container's preStop hook, or None for a row without one."""
    match row.hook:
        case "none":
            return None
        case "sleep":
            return {"sleep": {"seconds": row.sleep_seconds}}
        case "gate":
            return {"httpGet": {"path": f"/gate/{NAME}", "port": GATE_PORT}}


def deployment(row: Row, settings: Settings, version: str = OLD) -> JsonObject:
    container: dict[str, Any] = {
        "name": NAME,
        "image": image(version),
        "ports": [{"name": "http", "containerPort": TARGET_PORT, "protocol": "TCP"}],
        "env": [{"name": "STARTUP_SECONDS", "value": f"{settings.startup_seconds:g}"}],
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": TARGET_PORT},
            "periodSeconds": settings.probe_seconds,
        },
    }
    pre_stop = hook(row)
    if pre_stop is not None:
        container["lifecycle"] = {"preStop": pre_stop}
    pod: dict[str, Any] = {"containers": [container]}
    grace_seconds = row.grace_seconds or (GATE_GRACE_SECONDS if row.is_gated else 0)
    if grace_seconds:
        pod["terminationGracePeriodSeconds"] = grace_seconds
    rolling = {"maxSurge": settings.max_surge, "maxUnavailable": settings.max_unavailable}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": row.namespace, "labels": {"app": NAME}},
        "spec": {
            "replicas": settings.replicas,
            "selector": {"matchLabels": {"app": NAME}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
            "template": {"metadata": {"labels": {"app": NAME}}, "spec": pod},
        },
    }


def update() -> Patch:
    """The rolling update: nothing but the image's tag, as ``kubectl set image`` does it."""
    path = "/spec/template/spec/containers/0/image"
    test = {"op": "test", "path": path, "value": image(OLD)}
    return Patch([test, {"op": "replace", "path": path, "value": image(NEW)}], style="json")
