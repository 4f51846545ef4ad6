"""The objects of ``bench.ingress``: a site of pods that count for themselves, before it an Ingress."""

from __future__ import annotations

import sys
from typing import Any

from bench.ground import ROOT

Object = dict[str, Any]
NS = "demo"
PORT = 8080
REPLICAS = 11
GRACE_SECONDS = 60
_GATE = {"preStop": {"httpGet": {"path": "/gate/demo", "port": 15299}}}


def deployment(folder: str, replicas: int = REPLICAS) -> Object:
    """``folder`` is where the pods leave their counts."""
    container: Object = {
        "name": "demo",
        "image": "bench/counting:1",
        "command": [sys.executable, "-S", "-E", str(ROOT / "bench" / "counting.py")],
        "env": [{"name": "PORT", "value": str(PORT)}, {"name": "FOLDER", "value": folder}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 1},
        "lifecycle": _GATE,
    }
    labels = {"app": "demo"}
    pod = {"terminationGracePeriodSeconds": GRACE_SECONDS, "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "demo", "namespace": NS},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def plain() -> Object:
    """A patch of it: the same pods without a gate, which end at once."""
    container = deployment("")["spec"]["template"]["spec"]["containers"][0]
    without: Object = {"name": "demo", "lifecycle": None, "image": container["image"]}
    return {"spec": {"template": {"spec": {"containers": [without]}}}}


def site(class_name: str) -> tuple[Object, Object]:
    """The Service, and the Ingress of that class for every host."""
    meta = {"name": "demo", "namespace": NS}
    ports = [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta,
               "spec": {"selector": {"app": "demo"}, "ports": ports}}  # fmt: skip
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "demo", "port": {"number": PORT}}}}
    ingress = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta,
               "spec": {"ingressClassName": class_name, "rules": [{"http": {"paths": [path]}}]}}  # fmt: skip
    return service, ingress
