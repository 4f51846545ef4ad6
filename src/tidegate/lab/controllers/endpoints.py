"""The legacy Endpoints of a Service: ready and unready addresses by port (pkg/controller/endpoint).

Terminating pods are not in them at all, which is why nothing that drains should ever look here.
"""

from __future__ import annotations

import json

from tidegate.kube.api import ENDPOINTS, PODS, SERVICES, JsonObject
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Key
from tidegate.lab.controllers.endpoint import addresses, ports_of, should_be_listed
from tidegate.lab.controllers.endpointslice import endpoint_inputs
from tidegate.lab.controllers.labels import has_all, labels_of
from tidegate.lab.controllers.pods import is_ready
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.slices import HEADLESS, address_types, has_cluster_ip
from tidegate.lab.controllers.waking import selecting
from tidegate.lab.controllers.writes import Create, Remove, Replace

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
CONTROLLER = "endpoint-controller"


def subsets(service: JsonObject, pods: list[JsonObject]) -> list[JsonObject]:
    """Addresses grouped by the ports they serve, each group's sorted by address (RepackSubsets)."""
    published = bool(service["spec"].get("publishNotReadyAddresses"))
    kind = address_types(service)[0]
    groups: dict[str, JsonObject] = {}
    for pod in sorted(pods, key=lambda one: one["metadata"]["name"]):
        listed = addresses(pod, kind) if should_be_listed(pod, include_terminating=published) else []
        ports = [{key: value for key, value in port.items() if value != ""} for port in ports_of(service, pod)]
        if not listed or (not ports and service["spec"].get("ports")):
            continue
        meta, spec = pod["metadata"], pod["spec"]
        target = {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
        entry = {"ip": listed[0], "targetRef": target}
        if spec.get("nodeName"):
            entry["nodeName"] = spec["nodeName"]
        if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
            entry["hostname"] = spec["hostname"]
        group = groups.setdefault(json.dumps(ports, sort_keys=True), {"ports": ports})
        field = "addresses" if published or is_ready(pod) else "notReadyAddresses"
        group.setdefault(field, []).append(entry)
    result = []
    for _, group in sorted(groups.items()):
        ordered = {
            field: sorted(group[field], key=lambda entry: entry["ip"])
            for field in ("addresses", "notReadyAddresses")
            if field in group
        }
        result.append(ordered | ({"ports": group["ports"]} if group["ports"] else {}))
    return result


class EndpointsController(Controller):
    """Level-triggered over Services and pods."""

    component = CONTROLLER

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._services, self._pods, self._endpoints = map(self.cache, (SERVICES, PODS, ENDPOINTS))
        self._services.subscribe(self._service_changed)
        self._pods.subscribe(self._pod_changed)

    def _service_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        obj = new or old
        assert obj is not None
        self.enqueue(obj)

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if old and new and labels_of(old) == labels_of(new) and endpoint_inputs(old) == endpoint_inputs(new):
            return
        for service in selecting(old, new, self._services):
            self.enqueue(service)

    async def reconcile(self, key: Key) -> float | None:
        service, found = self._services.get(key), self._endpoints.get(key)
        if service is None:
            if found is not None and labels_of(found).get(MANAGED_BY) == CONTROLLER:
                await self._remove(key)
            return None
        selector = service["spec"].get("selector")
        if not selector or service["spec"].get("type") == "ExternalName":
            return None
        pods = [pod for pod in self._pods.within(key[0]) if has_all(selector, labels_of(pod))]
        labels = {**labels_of(service), MANAGED_BY: CONTROLLER}
        if not has_cluster_ip(service):
            labels[HEADLESS] = ""
        wanted = subsets(service, pods)
        if found is None:
            meta = {"name": key[1], "namespace": key[0], "labels": labels}
            obj = {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": wanted}
            await self.carry_out(key, Create(ENDPOINTS, obj))
        elif (found.get("subsets") or []) != wanted or labels_of(found) != labels:
            meta = {**found["metadata"], "labels": labels}
            await self.carry_out(key, Replace(ENDPOINTS, {**found, "metadata": meta, "subsets": wanted}))
        return None

    async def _remove(self, key: Key) -> None:
        try:
            await self.carry_out(key, Remove(ENDPOINTS, key))
        except ApiError as error:
            if not error.is_not_found:
                raise
