"""What a cluster has before anyone asks: its namespaces and the ``kubernetes`` Service with its endpoint."""

from __future__ import annotations

from tidegate.kube.api import ENDPOINTS, ENDPOINTSLICES, NAMESPACES, SERVICES, JsonObject
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Key
from tidegate.lab.config import LabConfig
from tidegate.lab.controllers.mirroring import SKIP_MIRROR
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.slices import SERVICE_NAME
from tidegate.lab.controllers.writes import Create, Replace, Write

NAMES = ("default", "kube-system", "kube-public", "kube-node-lease")
_KEY = ("default", "kubernetes")


def kubernetes_service(config: LabConfig) -> JsonObject:
    """default/kubernetes: how pods find the API server. No selector: its endpoint is kept here."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": f"{config.addressing.service_prefix}.0.1",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.addressing.api_port}],
        },
    }


def kubernetes_slice(config: LabConfig) -> JsonObject:
    """The one endpoint of the API server."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {SERVICE_NAME: "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [config.addressing.api_host], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": config.addressing.api_port, "protocol": "TCP"}],
    }


def kubernetes_endpoints(config: LabConfig) -> JsonObject:
    """The same endpoint in its legacy form; the label keeps it from being mirrored into a second slice."""
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {SKIP_MIRROR: "true"}},
        "subsets": [
            {
                "addresses": [{"ip": config.addressing.api_host}],
                "ports": [{"name": "https", "port": config.addressing.api_port, "protocol": "TCP"}],
            }
        ],
    }


class Bootstrap(Controller):
    """Puts back what is missing; keys are ("", namespace) and ("default", "kubernetes")."""

    component = "bootstrap-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._namespaces, self._services = self.cache(NAMESPACES), self.cache(SERVICES)
        self._slices, self._endpoints = self.cache(ENDPOINTSLICES), self.cache(ENDPOINTS)
        self._namespaces.subscribe(self._namespace_changed)
        self._services.subscribe(self._own_changed)
        self._slices.subscribe(self._own_changed)
        self._endpoints.subscribe(self._own_changed)
        for name in NAMES:
            self.queue.add(("", name))

    def _namespace_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is None and old is not None and old["metadata"]["name"] in NAMES:
            self.enqueue(old)
        elif old is None and new is not None and new["metadata"]["name"] == "default":
            self.queue.add(_KEY)

    def _own_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        obj = new or old
        assert obj is not None
        if (obj["metadata"]["namespace"], obj["metadata"]["name"]) == _KEY:
            self.queue.add(_KEY)

    async def reconcile(self, key: Key) -> float | None:
        if key != _KEY:
            if self._namespaces.get(key) is None:
                obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": key[1]}}
                await self._create(key, Create(NAMESPACES, obj))
            return None
        if self._services.get(_KEY) is None:
            await self._create(key, Create(SERVICES, kubernetes_service(self.world.config)))
        if self._endpoints.get(_KEY) is None:
            await self._create(key, Create(ENDPOINTS, kubernetes_endpoints(self.world.config)))
        wanted, found = kubernetes_slice(self.world.config), self._slices.get(_KEY)
        if found is None:
            await self._create(key, Create(ENDPOINTSLICES, wanted))
        elif any(found.get(part) != wanted[part] for part in ("endpoints", "ports")):
            await self.carry_out(key, Replace(ENDPOINTSLICES, {**found, **_parts(wanted)}))
        return None

    async def _create(self, key: Key, write: Write) -> None:
        try:
            await self.carry_out(key, write)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise


def _parts(wanted: JsonObject) -> JsonObject:
    return {part: wanted[part] for part in ("endpoints", "ports")}
