"""What the API server knows: listed once, or followed by watches, and decoded once per version of an object."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from tidegate.client.kinds import RESOURCES, WORKLOADS
from tidegate.kube.api import ENDPOINTSLICES, NODES, PODS, SERVICES, JsonObject, Resource, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Reflector
from tidegate.model import endpointslice, pod, service, workload
from tidegate.model.decode import Malformed
from tidegate.traffic import Census
from tidegate.vtime import Nursery

_VITAL = (SERVICES, ENDPOINTSLICES)
"""Without these there is nothing to tell; what else cannot be read is named as a problem."""
_DECODERS: dict[Resource, Callable[[Any], Any]] = {
    PODS: pod.decode,
    SERVICES: service.decode,
    ENDPOINTSLICES: endpointslice.decode,
    **{RESOURCES[kind]: workload.decode for kind in WORKLOADS},
}


@dataclass(frozen=True, slots=True)
class Sources:
    """Raw objects by resource, and what could not be read."""

    objects: dict[Resource, list[JsonObject]]
    scopes: dict[Resource, Selection]
    problems: tuple[str, ...] = ()

    @property
    def nodes(self) -> list[str]:
        """The names of all nodes, sorted."""
        return sorted(obj["metadata"]["name"] for obj in self.objects.get(NODES, ()))


async def read(client: KubeClient, namespace: str) -> Sources:
    """List everything a status needs; ``namespace`` "" is all of them.

    EndpointSlices are listed in all namespaces: whoever writes one may name a pod of another. Raises ``KubeError``.
    """
    own = Selection(namespace)
    wanted = [*_VITAL, PODS, NODES, *(RESOURCES[kind] for kind in WORKLOADS)]
    scopes = {resource: Selection() if resource in (ENDPOINTSLICES, NODES) else own for resource in wanted}
    found = await asyncio.gather(*(_list(client, resource, scopes[resource], namespace) for resource in wanted))
    objects: dict[Resource, list[JsonObject]] = {}
    problems = []
    for resource, (items, scope, problem) in zip(wanted, found, strict=True):
        if items is not None:
            objects[resource], scopes[resource] = items, scope
        if problem:
            problems.append(problem)
    return Sources(objects, {resource: scopes[resource] for resource in objects}, tuple(problems))


async def _list(
    client: KubeClient, resource: Resource, scope: Selection, namespace: str
) -> tuple[list[JsonObject] | None, Selection, str]:
    """Objects, where they were listed, and what is missing. Raises ``KubeError`` where nothing could do without."""
    try:
        return (await client.list(resource, scope)).items, scope, ""
    except ApiError as error:
        if resource is ENDPOINTSLICES and namespace and error.code == 403:
            own = Selection(namespace)
            problem = f"EndpointSlices of other namespaces cannot be read: {error.message}"
            return (await client.list(resource, own)).items, own, problem
        if resource in _VITAL:
            raise
        return None, scope, f"{resource.plural} cannot be read: {error.message}"


@dataclass(slots=True)
class Nouns:
    """Decodes; an object of a version that was decoded before is not decoded again."""

    _known: dict[tuple[str, str, str], Any] = field(default_factory=dict)

    def census(self, sources: Sources) -> tuple[Census, tuple[str, ...]]:
        """Everything indexed, and the objects that are not what their kind says."""
        known: dict[tuple[str, str, str], Any] = {}
        problems: list[str] = []
        nouns = {
            resource: list(self._decoded(resource, objects, known, problems))
            for resource, objects in sources.objects.items()
            if resource in _DECODERS
        }
        self._known = known
        owners = [one for kind in WORKLOADS for one in nouns.get(RESOURCES[kind], ())]
        return Census(nouns.get(PODS, ()), nouns[SERVICES], nouns[ENDPOINTSLICES], owners), tuple(problems)

    def _decoded(
        self, resource: Resource, objects: list[JsonObject], known: dict[Any, Any], problems: list[str]
    ) -> list[Any]:
        found = []
        for obj in objects:
            metadata = obj["metadata"]
            key = (resource.kind, metadata.get("uid") or metadata["name"], metadata.get("resourceVersion") or "")
            noun = self._known.get(key)
            if noun is None:
                try:
                    noun = _DECODERS[resource]({"kind": resource.kind, **obj})
                except Malformed as error:
                    problems.append(str(error))
                    continue
            known[key] = noun
            found.append(noun)
        return found


class Following:
    """The same by watches: ``sources`` are current, ``changed`` is set by every change."""

    def __init__(self, reflectors: dict[Resource, Reflector], first: Sources) -> None:
        self._reflectors = reflectors
        self._first = first
        self.changed = asyncio.Event()
        for reflector in reflectors.values():
            reflector.subscribe(lambda old, new: self.changed.set())

    @property
    def sources(self) -> Sources:
        objects = {one: list(reflector.objects.values()) for one, reflector in self._reflectors.items()}
        stale = [
            f"{resource.plural} may be out of date: {reflector.error}"
            for resource, reflector in self._reflectors.items()
            if reflector.error is not None
        ]
        return Sources(objects, self._first.scopes, (*self._first.problems, *stale))


@contextlib.asynccontextmanager
async def following(client: KubeClient, namespace: str) -> AsyncIterator[Following]:
    """Watches of everything that can be read, all synced. Raises ``KubeError``."""
    first = await read(client, namespace)
    reflectors = {resource: Reflector(client, resource, scope) for resource, scope in first.scopes.items()}
    async with Nursery() as nursery:
        for resource, reflector in reflectors.items():
            nursery.start(reflector.run(), name=f"watch {resource.plural}")
        for reflector in reflectors.values():
            await reflector.synced()
        try:
            yield Following(reflectors, first)
        finally:
            nursery.cancel()
