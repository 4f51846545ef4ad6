"""The kinds a verb can be about, by kubectl's short name."""

from __future__ import annotations

from typing import Literal

from tidegate.engine.owners import KINDS
from tidegate.kube.api import NODES, PODS, SERVICES, Resource

Kind = Literal["pod", "svc", "deploy", "rs", "sts", "ds", "job", "node"]

RESOURCES: dict[str, Resource] = {
    "pod": PODS,
    "svc": SERVICES,
    "deploy": KINDS["Deployment"],
    "rs": KINDS["ReplicaSet"],
    "sts": KINDS["StatefulSet"],
    "ds": KINDS["DaemonSet"],
    "job": KINDS["Job"],
    "node": NODES,
}
"""Where each kind lives."""

WORKLOADS: tuple[str, ...] = ("deploy", "rs", "sts", "ds", "job")
"""The kinds that make pods."""

KIND_OF: dict[str, str] = {resource.kind: kind for kind, resource in RESOURCES.items()}
"""The way back: a Kubernetes kind (``ReplicaSet``) -> ours (``rs``)."""
