"""Small strategies: nodes, endpoint slices, budgets, and the two spellings of an Event."""

from __future__ import annotations

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.strategy import Strategy, World, keep


class NodeStrategy(Strategy):
    """The kubelet registers with a status; the node starts tainted not-ready until the node controller sees it.

    (admission plugin nodetaint; the taint is what keeps the scheduler away from a node that never reported).
    """

    def __init__(self) -> None:
        super().__init__()

    def prepare_create(self, obj: JsonObject, world: World) -> None:
        obj.setdefault("spec", {})
        obj.setdefault("status", {})


class SliceStrategy(Strategy):
    """EndpointSlices count a generation although they have no spec; labels and ports belong to it (strategy.go)."""

    def __init__(self) -> None:
        super().__init__(has_generation=True, keeps_status=True)

    def content(self, obj: JsonObject) -> JsonObject:
        content = {key: value for key, value in obj.items() if key != "metadata"}
        content["labels"] = obj["metadata"].get("labels")
        return content


class ScaledStrategy(Strategy):
    """Deployment, ReplicaSet and the like: a spec that counts generations and a status apart."""

    def __init__(self) -> None:
        super().__init__(has_generation=True)


class BareStatusStrategy(Strategy):
    """A PodDisruptionBudget or autoscaler: the status starts empty and may be written only through ``/status``."""

    def __init__(self, status: JsonObject, *, has_generation: bool = True) -> None:
        super().__init__(has_generation=has_generation)
        self._status = status

    def prepare_create(self, obj: JsonObject, world: World) -> None:
        obj["status"] = {**self._status}


class PlainStrategy(Strategy):
    """Kinds without a status: ConfigMap, Secret, ServiceAccount, Lease, Event, RBAC."""

    def __init__(self, *, has_generation: bool = False) -> None:
        super().__init__(has_generation=has_generation, keeps_status=True)

    def prepare_create(self, obj: JsonObject, world: World) -> None:
        """Nothing is the server's."""


class ImmutableTypeStrategy(PlainStrategy):
    """Secrets keep their type when an update leaves it out."""

    def prepare_update(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        if not obj.get("type"):
            keep(obj, old, "type")


_EVENT_NAMES = {
    "regarding": "involvedObject",
    "note": "message",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "reportingController": "reportingComponent",
}
"""Fields of events.k8s.io/v1 by their names in core/v1 (pkg/apis/core/v1/conversion of Event)."""

_CORE_NAMES = {core: new for new, core in _EVENT_NAMES.items()}


def event_to_core(event: JsonObject) -> JsonObject:
    """An events.k8s.io/v1 Event as it is stored."""
    stored = {_EVENT_NAMES.get(key, key): value for key, value in event.items()}
    stored["apiVersion"] = "v1"
    return stored


def event_from_core(event: JsonObject) -> JsonObject:
    """A stored Event as events.k8s.io/v1 shows it."""
    shown = {_CORE_NAMES.get(key, key): value for key, value in event.items()}
    shown["apiVersion"] = "events.k8s.io/v1"
    return shown
