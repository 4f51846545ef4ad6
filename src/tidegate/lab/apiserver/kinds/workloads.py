"""StatefulSets, DaemonSets and Jobs: what the server sets on them and keeps (pkg/registry/apps, pkg/registry/batch)."""

from __future__ import annotations

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.kinds.plain import SpecStrategy
from tidegate.lab.apiserver.strategy import World

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
"""An annotation in apps/v1; in the server's own form of the object it is a field that nobody may write."""

PREFIX = "batch.kubernetes.io/"
_LEGACY = ("", PREFIX)


class StatefulSetStrategy(SpecStrategy):
    """maxUnavailable is dropped: MaxUnavailableStatefulSet is off by default in 1.36."""

    def __init__(self) -> None:
        super().__init__({"replicas": 0, "availableReplicas": 0})

    def prepare_create(self, obj: JsonObject, world: World) -> None:
        super().prepare_create(obj, world)
        _drop_max_unavailable(obj)

    def prepare_update(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        super().prepare_update(obj, old, world)
        _drop_max_unavailable(obj)


def _drop_max_unavailable(obj: JsonObject) -> None:
    strategy = (obj.get("spec") or {}).get("updateStrategy")
    if isinstance(strategy, dict):
        (strategy.get("rollingUpdate") or {}).pop("maxUnavailable", None)


class DaemonSetStrategy(SpecStrategy):
    """A template generation is counted beside the generation; pods carry it as a label."""

    def __init__(self) -> None:
        counts = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
        super().__init__(dict.fromkeys(counts, 0))

    def prepare_create(self, obj: JsonObject, world: World) -> None:
        super().prepare_create(obj, world)
        _count_templates(obj, max(1, _template_generation(obj)))

    def prepare_update(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        super().prepare_update(obj, old, world)
        is_new = (obj.get("spec") or {}).get("template") != old["spec"].get("template")
        _count_templates(obj, _template_generation(old) + is_new)

    def prepare_status(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        super().prepare_status(obj, old, world)
        _count_templates(obj, _template_generation(old))


def _template_generation(obj: JsonObject) -> int:
    text = str((obj["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION) or 0)
    return int(text) if text.lstrip("-").isdigit() else 0


def _count_templates(obj: JsonObject, generation: int) -> None:
    annotations = dict(obj["metadata"].get("annotations") or {})
    obj["metadata"]["annotations"] = annotations | {TEMPLATE_GENERATION: str(generation)}


class JobStrategy(SpecStrategy):
    """A Job selects its pods by its own uid unless its creator insists; deleted without a word, it orphans them."""

    propagation = "Orphan"
    unsaid_warning = (
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or "
        "set propagationPolicy=Orphan to suppress this warning"
    )

    def prepare_named(self, obj: JsonObject) -> None:
        """generateSelector: labels by name and uid on the template, the uid in the selector."""
        spec, metadata = obj["spec"], obj["metadata"]
        if spec.get("manualSelector"):
            return
        template = spec["template"].setdefault("metadata", {})
        labels = template["labels"] = dict(template.get("labels") or {})
        for prefix in _LEGACY:
            labels.setdefault(f"{prefix}job-name", metadata["name"])
        for prefix in _LEGACY:
            labels.setdefault(f"{prefix}controller-uid", metadata["uid"])
        selector = spec.get("selector") or {}
        wanted = {f"{PREFIX}controller-uid": metadata["uid"], **(selector.get("matchLabels") or {})}
        spec["selector"] = {**selector, "matchLabels": wanted}
        if not metadata.get("labels"):  # what the server stores is defaulted again when it is read
            metadata["labels"] = dict(labels)
