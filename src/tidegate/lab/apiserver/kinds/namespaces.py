"""Namespaces: the finalizer that keeps one until its content is gone, and the ones that may not go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.strategy import Strategy, World, keep

if TYPE_CHECKING:
    from tidegate.lab.apiserver.registry import Row

IMMORTAL = ("default", "kube-system", "kube-public")


class NamespaceStrategy(Strategy):
    """pkg/registry/core/namespace: spec.finalizers [kubernetes] holds the object until ``/finalize`` empties it."""

    def prepare_create(self, obj: JsonObject, world: World) -> None:
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}
        metadata = obj["metadata"]
        metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}

    def prepare_update(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        keep(obj, old, "spec")
        keep(obj, old, "status")
        metadata = obj["metadata"]
        metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}

    def holds_deletion(self, obj: JsonObject) -> bool:
        return bool((obj.get("spec") or {}).get("finalizers"))

    def mark_deleting(self, obj: JsonObject) -> None:
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}

    def check_deletion(self, row: Row, obj: JsonObject) -> None:
        name = obj["metadata"]["name"]
        if name in IMMORTAL:
            raise failures.forbidden(row, name, "this namespace may not be deleted")
