"""The EndpointSlice mirroring controller: hand-written Endpoints of a Service without a selector become slices.

Another writer of slices than the EndpointSlice controller, as a real cluster has it (pkg/controller/
endpointslicemirroring): whoever looks for an address must look at all slices, not at one controller's.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable

from tidegate.kube.api import ENDPOINTS, ENDPOINTSLICES, SERVICES, JsonObject
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.controllers.labels import annotations_of, labels_of
from tidegate.lab.controllers.owners import reference_to
from tidegate.lab.controllers.pods import is_terminating
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.slices import HEADLESS, MANAGED_BY, SERVICE_NAME
from tidegate.lab.controllers.writes import Create, Remove, Replace, Write

CONTROLLER = "endpointslicemirroring-controller.k8s.io"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_ADDRESSES_MAX = 1000


def is_mirrored(endpoints: JsonObject | None, service: JsonObject | None) -> bool:
    """True for Endpoints that a user wrote for a Service that selects nothing."""
    if endpoints is None or service is None or service["spec"].get("selector"):
        return False
    if is_terminating(endpoints) or labels_of(endpoints).get(SKIP_MIRROR) == "true":
        return False
    return _LEADER not in annotations_of(endpoints)


def wanted_slices(endpoints: JsonObject) -> list[JsonObject]:
    """One slice per subset and address family, at most 1000 addresses each."""
    labels = {key: value for key, value in labels_of(endpoints).items() if key != HEADLESS}
    labels |= {SERVICE_NAME: endpoints["metadata"]["name"], MANAGED_BY: CONTROLLER}
    name, namespace = endpoints["metadata"]["name"], endpoints["metadata"]["namespace"]
    owner = reference_to({**endpoints, "apiVersion": "v1", "kind": "Endpoints"})
    result: list[JsonObject] = []
    for subset in endpoints.get("subsets") or ():
        ports = [
            {"name": port.get("name") or "", "protocol": port.get("protocol") or "TCP", "port": port["port"]}
            for port in subset.get("ports") or ()
        ]
        for kind in ("IPv4", "IPv6"):
            found = [*_listed(subset.get("addresses"), kind, True)]
            found += _listed(subset.get("notReadyAddresses"), kind, False)
            if not found:
                continue
            meta = {"generateName": f"{name}-", "namespace": namespace, "labels": labels, "ownerReferences": [owner]}
            obj = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta}
            result.append(obj | {"addressType": kind, "endpoints": found[:_ADDRESSES_MAX], "ports": ports})
    return result


def _listed(addresses: Iterable[JsonObject] | None, kind: str, ready: bool) -> Iterable[JsonObject]:
    for address in addresses or ():
        if f"IPv{ipaddress.ip_address(address['ip']).version}" == kind:
            kept = {key: address[key] for key in ("hostname", "nodeName", "targetRef") if address.get(key)}
            yield {"addresses": [address["ip"]], "conditions": {"ready": ready}, **kept}


def plan(wanted: list[JsonObject], found: list[JsonObject]) -> list[Write]:
    """Slices with the same family and ports are re-used; the rest is created and deleted."""
    left = list(found)
    writes: list[Write] = []
    for one in wanted:
        same = next((old for old in left if _group(old) == _group(one)), None)
        if same is None:
            writes.append(Create(ENDPOINTSLICES, one))
            continue
        left.remove(same)
        labels = one["metadata"]["labels"]
        if same.get("endpoints") != one["endpoints"] or labels_of(same) != labels:
            meta = {**same["metadata"], "labels": labels}
            writes.append(Replace(ENDPOINTSLICES, {**same, "metadata": meta, "endpoints": one["endpoints"]}))
    return [*writes, *(Remove(ENDPOINTSLICES, key_of(old)) for old in left)]


def _group(one: JsonObject) -> str:
    return json.dumps([one["addressType"], one.get("ports") or []], sort_keys=True)


class MirroringController(Controller):
    """Level-triggered over Endpoints, Services and its own slices."""

    component = "endpoint-slice-mirroring-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._endpoints, self._services = self.cache(ENDPOINTS), self.cache(SERVICES)
        self._slices = self.cache(ENDPOINTSLICES)
        self._endpoints.subscribe(self._changed)
        self._services.subscribe(self._changed)
        self._slices.subscribe(self._slice_changed)

    def _changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        obj = new or old
        assert obj is not None
        key = key_of(obj)
        service = self._services.get(key)
        if service is None or not service["spec"].get("selector"):
            self.queue.add(key)

    def _slice_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        for obj in (old, new):
            if obj is not None and labels_of(obj).get(MANAGED_BY) == CONTROLLER:
                self.queue.add((obj["metadata"]["namespace"], labels_of(obj).get(SERVICE_NAME, "")))

    async def reconcile(self, key: Key) -> float | None:
        endpoints = self._endpoints.get(key)
        own = {SERVICE_NAME: key[1], MANAGED_BY: CONTROLLER}.items()
        found = [one for one in self._slices.within(key[0]) if own <= labels_of(one).items()]
        mirrored = is_mirrored(endpoints, self._services.get(key))
        wanted = wanted_slices(endpoints) if mirrored and endpoints is not None else []
        await self.perform(key, plan(wanted, [one for one in found if not is_terminating(one)]))
        return None
