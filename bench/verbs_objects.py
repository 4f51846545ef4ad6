"""The objects of the verbs' stories, under the names and numbers that engineers told them with."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

GATE = {"preStop": {"httpGet": {"path": "/gate/echo", "port": 15299}}}


def deployment(
    name: str, labels: dict[str, str], replicas: int = 3, *, version: str = "1", gated: bool = False
) -> Object:
    """A Deployment whose selector is its labels; ``gated``: its pods drain themselves in a rollout."""
    container: Object = {
        "name": "echo",
        "image": f"tidegate/echo:{version}",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
        "env": [{"name": "STARTUP_SECONDS", "value": "0.3"}],
    }
    if gated:
        container["lifecycle"] = GATE
    pod: Object = {"containers": [container], "terminationGracePeriodSeconds": 60 if gated else 30}
    return of_pods(name, labels, replicas, pod)


def of_pods(name: str, labels: dict[str, str], replicas: int, pod: Object) -> Object:
    """A Deployment of pods of this spec, updated one at a time with a spare one first."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def service(name: str, selector: dict[str, str], **spec: Any) -> Object:
    """A Service on port 8080; a NodePort one gets a port from the API server."""
    ports = [{"name": "http", "port": 8080, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": selector, "ports": ports, **spec},
    }


def budget(name: str, labels: dict[str, str], least: int) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"minAvailable": least, "selector": {"matchLabels": labels}},
    }


def autoscaler(name: str, load: int, most: int) -> Object:
    """One of the Deployment ``name``: a pod for each 100 of what its annotation says is there in all (docs/lab.md), and
    ``most`` of them at most."""
    target = {"type": "AverageValue", "averageValue": "100"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "annotations": {"lab.tidegate.dev/load": str(load)}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 2,
            "maxReplicas": most,
            "metrics": [{"type": "Pods", "pods": {"metric": {"name": "load"}, "target": target}}],
        },
    }


def policy(name: str, labels: dict[str, str]) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": [{}]},
    }


def bare_pod(name: str, labels: dict[str, str], annotations: dict[str, str]) -> Object:
    """A pod of its own, as a GitOps manager keeps one."""
    container = {"name": "echo", "image": "tidegate/echo:1", "ports": [{"containerPort": 8080}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {"containers": [container]},
    }


def with_label(made: Object, key: str, value: str) -> Object:
    """A template label that the Deployment's selector does not look at."""
    labels = made["spec"]["template"]["metadata"]["labels"]
    made["spec"]["template"]["metadata"]["labels"] = {**labels, key: value}
    return made
