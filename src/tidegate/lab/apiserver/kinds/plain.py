"""Small strategies: nodes, endpoint slices, budgets, and the two spellings of an Event."""

from __future__ import annotations

from datetime import timedelta

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.objects import stamp
from tidegate.lab.apiserver.strategy import Strategy, World, keep


class NodeStrategy(Strategy):
    """The kubelet registers a node with its status in one write."""

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


class SpecStrategy(Strategy):
    """A spec that counts generations and a status apart, which starts as ``status`` (Go writes some zeros out)."""

    def __init__(self, status: JsonObject | None = None, *, has_generation: bool = True) -> None:
        super().__init__(has_generation=has_generation)
        self._status = status or {}

    def prepare_create(self, obj: JsonObject, world: World) -> None:
        obj["status"] = {**self._status}


class DeploymentStrategy(SpecStrategy):
    """A Deployment's annotations belong to what its generation counts (apps/deployment/strategy.go)."""

    def content(self, obj: JsonObject) -> JsonObject:
        return {**super().content(obj), "annotations": obj["metadata"].get("annotations")}

    def prepare_status(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        super().prepare_status(obj, old, world)
        keep(obj["metadata"], old["metadata"], "labels")


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


class EventStrategy(PlainStrategy):
    """Events are forgotten an hour after they were last written (kube-apiserver --event-ttl)."""

    def __init__(self) -> None:
        super().__init__()
        self._created = 0

    def allocate(self, obj: JsonObject, old: JsonObject | None, world: World) -> None:
        self._created += old is None
        if old is not None or self._created % EVENTS_PER_SWEEP:
            return
        row = world.registry.named("", "events")
        oldest = stamp(world.now - timedelta(seconds=EVENT_SECONDS))
        for version in list(world.store.collection(row).versions()):
            if _last_written(version.object) < oldest:
                world.store.remove(row, version)


def _last_written(event: JsonObject) -> str:
    """RFC 3339 in UTC sorts as text."""
    created: str = event["metadata"]["creationTimestamp"]
    return max(created, event.get("lastTimestamp") or "", (event.get("series") or {}).get("lastObservedTime") or "")


EVENT_SECONDS = 3600
EVENTS_PER_SWEEP = 100

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
    for key in ("reportingController", "reportingInstance"):
        if not shown.get(key):
            shown.pop(key, None)
    shown["apiVersion"] = "events.k8s.io/v1"
    return shown
