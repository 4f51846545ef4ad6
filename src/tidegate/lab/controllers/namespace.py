"""The namespace controller: a namespace goes after its content (pkg/controller/namespace/deletion)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from tidegate import vtime
from tidegate.kube.api import EVENTS, NAMESPACES, Deletion, JsonObject, Resource, Selection
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.controllers.pods import is_terminating
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.writes import Remove, Replace
from tidegate.lab.instants import stamp

FINALIZER = "kubernetes"
_RETRY_SECONDS = 5.0

_GOOD = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": (
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


def deletion_conditions(
    old: Iterable[JsonObject], remaining: Counter[str], finalizers: Counter[str], now: datetime
) -> list[JsonObject]:
    """The five conditions of a namespace on its way out; times are kept while a status is."""
    found = {condition["type"]: condition for condition in old}
    said = {kind: ("False", *words) for kind, words in _GOOD.items()}
    if remaining:
        counts = ", ".join(f"{name} has {count} resource instances" for name, count in sorted(remaining.items()))
        text = f"Some resources are remaining: {counts}"
        said["NamespaceContentRemaining"] = ("True", "SomeResourcesRemain", text)
    if finalizers:
        counts = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(finalizers.items()))
        text = f"Some content in the namespace has finalizers remaining: {counts}"
        said["NamespaceFinalizersRemaining"] = ("True", "SomeFinalizersRemain", text)
    result = []
    for kind, (status, reason, message) in said.items():
        before = found.get(kind)
        since = before["lastTransitionTime"] if before and before["status"] == status else stamp(now)
        words = {"reason": reason, "message": message}
        result.append({"type": kind, "status": status, "lastTransitionTime": since, **words})
    return result


class NamespaceController(Controller):
    """Woken by the deletion of a namespace and by every object that leaves it."""

    component = "namespace-controller"

    def __init__(self, world: World, resources: Iterable[Resource]) -> None:
        super().__init__(world)
        self._namespaces = self.cache(NAMESPACES)
        self._content = tuple(one for one in resources if one.namespaced)
        self._namespaces.subscribe(self._namespace_changed)
        for resource in self._content:
            self.cache(resource).subscribe(self._content_changed)

    def follow(self, resources: tuple[Resource, ...]) -> None:
        """A custom kind has come; a namespace takes its objects along."""
        if resources[0].namespaced:
            self._content = (*self._content, resources[0])
            self.cache(resources[0]).subscribe(self._content_changed)

    def forget(self, resource: Resource, *, is_gone: bool) -> None:
        """A custom kind is no longer served: there is nothing of it to wait for."""
        self._content = tuple(one for one in self._content if one != resource)
        for namespace in self._namespaces.all():
            self._namespace_changed(None, namespace)

    def _namespace_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is not None and is_terminating(new):
            self.enqueue(new)

    def _content_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is None and old is not None:
            namespace = self._namespaces.get(("", old["metadata"]["namespace"]))
            if namespace is not None and is_terminating(namespace):
                self.enqueue(namespace)

    async def reconcile(self, key: Key) -> float | None:
        namespace = self._namespaces.get(key)
        if namespace is None or not is_terminating(namespace):
            return None
        remaining: Counter[str] = Counter()
        finalizers: Counter[str] = Counter()
        for resource in (*self._content, EVENTS):
            for obj in await self._emptied(key, resource):
                remaining[f"{resource.plural}.{resource.group}"] += 1
                finalizers.update(obj["metadata"].get("finalizers") or ())
        status = namespace.get("status") or {}
        now = vtime.now()
        said = deletion_conditions(status.get("conditions") or (), remaining, finalizers, now)
        if said != status.get("conditions"):
            wanted = {**namespace, "status": {**status, "conditions": said}}
            await self.carry_out(key, Replace(NAMESPACES, wanted, "status"))
            return 0.0
        if remaining:
            return _RETRY_SECONDS
        kept = [name for name in namespace["spec"].get("finalizers") or () if name != FINALIZER]
        if kept != (namespace["spec"].get("finalizers") or []):
            wanted = {**namespace, "spec": {**namespace["spec"], "finalizers": kept}}
            try:
                await self.carry_out(key, Replace(NAMESPACES, wanted, "finalize"))
            except ApiError as error:
                if not error.is_not_found:
                    raise
        return None

    async def _emptied(self, key: Key, resource: Resource) -> list[JsonObject]:
        """Delete all of one kind; answers what is still there (graceful pods, objects with finalizers)."""
        select = Selection(namespace=key[1])
        try:
            found = await self.api.list(resource, select)
        except ApiError as error:
            if not error.is_not_found:
                raise
            return []  # a custom kind that has just gone
        for obj in found.items:
            if is_terminating(obj):
                continue
            options = Deletion(uid=obj["metadata"]["uid"], propagation="Background")
            try:
                await self.carry_out(key, Remove(resource, key_of(obj), options))
            except ApiError as error:
                if not error.is_not_found:
                    raise
        return (await self.api.list(resource, select)).items if found.items else []
