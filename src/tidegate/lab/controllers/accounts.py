"""What every namespace is born with: the default ServiceAccount and the kube-root-ca.crt ConfigMap."""

from __future__ import annotations

from tidegate.kube.api import CONFIGMAPS, NAMESPACES, SERVICEACCOUNTS, JsonObject
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Key
from tidegate.lab.controllers.pods import is_terminating
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.writes import Create

ACCOUNT, ROOT_CA = "default", "kube-root-ca.crt"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as "
    "the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of "
    "Kubernetes clusters."
)


class NamespaceFurnisher(Controller):
    """The serviceaccount controller and the root CA publisher of the real controller manager, in one."""

    component = "serviceaccount-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._namespaces = self.cache(NAMESPACES)
        self._furniture = {ACCOUNT: self.cache(SERVICEACCOUNTS), ROOT_CA: self.cache(CONFIGMAPS)}
        self._namespaces.subscribe(self._namespace_changed)
        for cache in self._furniture.values():
            cache.subscribe(self._furniture_changed)

    def _namespace_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is not None and old is None:
            self.enqueue(new)

    def _furniture_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is None and old is not None and old["metadata"]["name"] in self._furniture:
            self.queue.add(("", old["metadata"]["namespace"]))

    async def reconcile(self, key: Key) -> float | None:
        namespace = self._namespaces.get(key)
        if namespace is None or is_terminating(namespace):
            return None
        for name, cache in self._furniture.items():
            if cache.get((key[1], name)) is None:
                await self._create(key, name)
        return None

    async def _create(self, key: Key, name: str) -> None:
        meta: JsonObject = {"name": name, "namespace": key[1]}
        if name == ACCOUNT:
            write = Create(SERVICEACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        else:
            meta["annotations"] = {"kubernetes.io/description": _DESCRIPTION}
            obj = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": meta,
                "data": {"ca.crt": self.world.config.authority},
            }
            write = Create(CONFIGMAPS, obj)
        try:
            await self.carry_out(key, write)
        except ApiError as error:
            # Forbidden: the namespace started to go meanwhile.
            if error.reason not in ("AlreadyExists", "Forbidden", "NotFound"):
                raise
