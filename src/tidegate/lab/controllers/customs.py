"""Custom kinds for the controllers that look after every kind: copies come and go with the definitions.

The real ones ask discovery again every 30 s (garbagecollector.go Sync, namespace deletion at each pass); here the
definitions themselves are followed.
"""

from __future__ import annotations

from typing import Protocol

from tidegate.kube.api import JsonObject, Resource
from tidegate.lab.controllers.cache import Caches

DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False)


class Follower(Protocol):
    """Who wants to know of custom kinds; ``resources`` are the served versions of one, the followed one first."""

    def follow(self, resources: tuple[Resource, ...]) -> None: ...

    def forget(self, resource: Resource, *, is_gone: bool) -> None: ...


def served(definition: JsonObject) -> tuple[Resource, ...]:
    """The versions of an established definition that are served, the stored one first; () while it is not."""
    status, spec = definition.get("status") or {}, definition["spec"]
    conditions = status.get("conditions") or ()
    if not any(one["type"] == "Established" and one["status"] == "True" for one in conditions):
        return ()
    names, is_namespaced = status["acceptedNames"], spec["scope"] == "Namespaced"
    versions = sorted((one for one in spec["versions"] if one.get("served")), key=lambda one: not one.get("storage"))
    return tuple(
        Resource(spec["group"], version["name"], names["plural"], names["kind"], is_namespaced) for version in versions
    )


class CustomKinds:
    """Tells its followers, and keeps a copy of each kind's objects while it is served."""

    def __init__(self, caches: Caches, followers: tuple[Follower, ...]) -> None:
        self._caches = caches
        self._followers = followers
        self._followed: dict[str, Resource] = {}
        caches.of(DEFINITIONS).subscribe(self._changed)

    def _changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        definition = new or old
        assert definition is not None
        name = definition["metadata"]["name"]
        resources = served(definition) if new is not None else ()
        before = self._followed.get(name)
        if before is not None and before not in resources:
            del self._followed[name]
            self._caches.forget(before)
            for follower in self._followers:
                follower.forget(before, is_gone=new is None)
        if resources and name not in self._followed:
            self._followed[name] = resources[0]
            for follower in self._followers:
                follower.follow(resources)
            self._caches.follow(resources[0])
