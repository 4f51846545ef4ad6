"""The EndpointSlice controller: every pod or Service change is one Service reconciled, one slice written."""

from __future__ import annotations

from datetime import datetime

from tidegate.kube.api import ENDPOINTSLICES, NODES, PODS, SERVICES, JsonObject
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.controllers.labels import has_all, labels_of
from tidegate.lab.controllers.pods import is_ready, is_terminal, is_terminating, ready_since
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.slices import CONTROLLER, MANAGED_BY, SERVICE_NAME, View, plan
from tidegate.lab.controllers.waking import selecting
from tidegate.lab.controllers.writes import Remove, Write
from tidegate.lab.instants import parse_stamp


class TriggerTimes:
    """What last set each Service's endpoints off (EndpointTriggerTimeTracker): kept between passes."""

    def __init__(self) -> None:
        self._services: dict[Key, datetime] = {}
        self._pods: dict[Key, dict[str, datetime]] = {}

    def update(self, key: Key, service: JsonObject, pods: list[JsonObject]) -> datetime | None:
        """The earliest of the times that are new since the last pass; None when no time is."""
        known = self._pods.get(key, {})
        current = {pod["metadata"]["name"]: since for pod in pods if (since := ready_since(pod)) is not None}
        fresh = [since for name, since in current.items() if name not in known or since > known[name]]
        made = parse_stamp(service["metadata"].get("creationTimestamp"))
        if made is not None and (key not in self._services or made > self._services[key]):
            self._services[key] = made
            fresh.append(made)
        self._pods[key] = current
        return min(fresh, default=None)

    def forget(self, key: Key) -> None:
        """The Service is gone."""
        self._services.pop(key, None)
        self._pods.pop(key, None)


def endpoint_inputs(pod: JsonObject) -> tuple[object, ...]:
    """All of a pod that its endpoints depend on (podEndpointsChanged)."""
    status, spec = pod.get("status") or {}, pod["spec"]
    ips = tuple(entry["ip"] for entry in status.get("podIPs") or ()) or status.get("podIP")
    where = (spec.get("nodeName"), spec.get("hostname"), spec.get("subdomain"))
    return is_terminating(pod), is_ready(pod), is_terminal(pod), ips, *where, ready_since(pod)


class EndpointSliceController(Controller):
    """Level-triggered over Services, pods, its own slices and nodes."""

    component = "endpoint-slice-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        kinds = (SERVICES, PODS, ENDPOINTSLICES, NODES)
        self._services, self._pods, self._slices, self._nodes = map(self.cache, kinds)
        self._times = TriggerTimes()
        self._written: dict[Key, str] = {}
        self._services.subscribe(self._service_changed)
        self._pods.subscribe(self._pod_changed)
        self._slices.subscribe(self._slice_changed)

    def _service_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        obj = new or old
        assert obj is not None
        self.enqueue(obj)

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        """Wake the Services that select it now; when labels changed, those that did before as well."""
        if old and new and labels_of(old) == labels_of(new) and endpoint_inputs(old) == endpoint_inputs(new):
            return
        for service in selecting(old, new, self._services):
            self.enqueue(service)

    def _slice_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        """Someone else may have changed or deleted a slice of ours; our own writes need no second look."""
        if new is not None and self._written.get(key_of(new)) == new["metadata"]["resourceVersion"]:
            return
        if new is None and old is not None:
            self._written.pop(key_of(old), None)
        for obj in (old, new):
            if obj is not None and labels_of(obj).get(MANAGED_BY) == CONTROLLER:
                name = labels_of(obj).get(SERVICE_NAME)
                if name:
                    self.queue.add((obj["metadata"]["namespace"], name))

    async def reconcile(self, key: Key) -> float | None:
        service = self._services.get(key)
        if service is None:
            self._times.forget(key)
            return None
        selector = service["spec"].get("selector")
        if not selector or service["spec"].get("type") == "ExternalName":
            return None
        pods = [pod for pod in self._pods.within(key[0]) if has_all(selector, labels_of(pod))]
        slices = [one for one in self._slices.within(key[0]) if _is_ours(one, key[1])]
        nodes = {node["metadata"]["name"]: node for node in self._nodes.all()}
        trigger = self._times.update(key, service, pods)
        writes, lost = plan(View(service, tuple(pods), tuple(slices), nodes, trigger))
        await self._write(key, writes)
        return 1.0 if lost else None

    async def carry_out(self, key: Key, write: Write) -> JsonObject | None:
        """As every controller does, noting the version each slice was left at."""
        answer = await super().carry_out(key, write)
        if answer is not None and not isinstance(write, Remove):
            self._written[key_of(answer)] = answer["metadata"]["resourceVersion"]
        return answer

    async def _write(self, key: Key, writes: list[Write]) -> None:
        try:
            await self.perform(key, writes)
        except Exception:
            self._times.forget(key)
            raise


def _is_ours(one: JsonObject, service: str) -> bool:
    labels = labels_of(one)
    is_leaving = is_terminating(one)
    return labels.get(SERVICE_NAME) == service and labels.get(MANAGED_BY) == CONTROLLER and not is_leaving
