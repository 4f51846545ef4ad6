"""One namespace's objects, watched while a release of it is on its way, and dropped when none is.

Of each kind one watch, whatever the number of releases; ``Plot.list`` answers ``client.release.look`` with what belongs
to one workload alone, so that a turn costs what the workload is large, not what the namespace is. Reads may be as old
as a watch is late: every write tests the version that it was decided on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from tidegate.client.release.endings import Endings
from tidegate.client.release.look import maker_uid
from tidegate.engine.owners import controller_uid
from tidegate.kube.api import (
    ALL,
    DEPLOYMENTS,
    ENDPOINTSLICES,
    PODS,
    REPLICASETS,
    SERVICES,
    Api,
    JsonObject,
    Listing,
    Resource,
    Selection,
)
from tidegate.kube.errors import KubeError, Unreachable
from tidegate.kube.reflector import Key, Reflector, key_of
from tidegate.model.endpointslice import SERVICE_LABEL
from tidegate.release.scene import WORKLOAD_LABEL
from tidegate.vtime import Nursery

KINDS = (DEPLOYMENTS, REPLICASETS, PODS, SERVICES, ENDPOINTSLICES)
SYNC_SECONDS = 20.0
Wake = Callable[[str, str], None]
"""(namespace, workload): something of it has changed; "" for any workload."""
Gone = Callable[[JsonObject], None]
"""Told of a pod that is not there any more, as it was last seen."""


class Territory:
    """``await run()`` keeps the copies current. ``wake`` is told whose objects changed."""

    def __init__(self, api: Api, namespace: str, wake: Wake, gone: Gone = lambda pod: None) -> None:
        self.namespace = namespace
        self._wake, self._gone = wake, gone
        self._copies = {kind.plural: Reflector(api, kind, Selection(namespace), relists=True) for kind in KINDS}
        self._filed: dict[str, dict[Key, None]] = {}
        """Place -> keys of the kind that the place is about (``_places``): where a workload's objects are found."""
        self._by_uid: dict[str, Key] = {}
        """uid of a Deployment or ReplicaSet -> its key."""
        self._endings: dict[str, Endings] = {}
        for plural, copy in self._copies.items():
            copy.subscribe(partial(self._changed, plural))

    async def run(self) -> None:
        async with Nursery() as nursery:
            for plural, copy in self._copies.items():
                nursery.start(copy.run(), name=f"{plural} of {self.namespace}")

    async def synced(self) -> None:
        for copy in self._copies.values():
            await copy.synced()

    @property
    def error(self) -> KubeError | None:
        """Why a copy may be stale right now."""
        return next((copy.error for copy in self._copies.values() if copy.error is not None), None)

    def plot(self, api: Api, workload: str, services: tuple[str, ...]) -> Plot:
        """What belongs to ``workload``, as an ``Api``. ``services``: of its strategy, besides those that select it."""
        return Plot(api, self, workload, services)

    def endings(self, workload: str) -> Endings:
        """How pods of ``workload`` ended since it was first asked for."""
        found = self._endings.get(workload)
        if found is None:
            found = self._endings[workload] = Endings()
            for obj in self._pods(workload):
                found.saw(None, obj)
        return found

    def forget(self, workload: str) -> None:
        self._endings.pop(workload, None)

    def has_deployment(self, name: str) -> bool:
        return (self.namespace, name) in self._copies[DEPLOYMENTS.plural].objects

    # --- what belongs to whom ---

    def objects_of(self, workload: str, plural: str, services: tuple[str, ...]) -> list[JsonObject]:
        """The objects of one kind that belong to ``workload``, by name."""
        match plural:
            case DEPLOYMENTS.plural:
                return self._at(plural, [f"of/{workload}"])
            case REPLICASETS.plural:
                return self._replicasets(workload)
            case PODS.plural:
                return self._pods(workload)
            case SERVICES.plural:
                return self._services(workload, services)
            case _:
                names = [f"svc/{_name(one)}" for one in self._services(workload, services)]
                return self._at(plural, [*names, *(f"pod/{_name(one)}" for one in self._pods(workload))])

    def _at(self, plural: str, places: Iterable[str]) -> list[JsonObject]:
        copy = self._copies[plural].objects
        keys: dict[Key, None] = {}
        for place in places:
            keys |= self._filed.get(f"{plural}/{place}", {})
        return [copy[key] for key in sorted(keys) if key in copy]

    def _replicasets(self, workload: str) -> list[JsonObject]:
        owners = self.objects_of(workload, DEPLOYMENTS.plural, ())
        return self._at(REPLICASETS.plural, [f"by/{one['metadata']['uid']}" for one in owners])

    def _pods(self, workload: str) -> list[JsonObject]:
        return self._at(PODS.plural, [f"by/{one['metadata']['uid']}" for one in self._replicasets(workload)])

    def _services(self, workload: str, services: tuple[str, ...]) -> list[JsonObject]:
        """Those that select its pods or what its templates make, those of the strategy, and those made for it."""
        labels = [_labels(one["spec"]["template"]) for one in self.objects_of(workload, DEPLOYMENTS.plural, ())]
        labels += [_labels(one) for one in self._pods(workload)]
        pairs = {f"on/{key}={value}": None for one in labels for key, value in one.items()}
        named = {f"is/{name}": None for name in services}
        found = self._at(SERVICES.plural, [*pairs, *named, f"of/{workload}"])
        return [
            one
            for one in found
            if _name(one) in services
            or _labels(one).get(WORKLOAD_LABEL) == workload
            or any(_selector(one).items() <= each.items() for each in labels)
        ]

    # --- what changes ---

    def _changed(self, plural: str, old: JsonObject | None, new: JsonObject | None) -> None:
        either: JsonObject = new or old or {}
        key, uid = key_of(either), str(either["metadata"].get("uid") or "")
        before, after = _places(plural, old), _places(plural, new)
        for place in before:
            if place not in after:
                self._unfile(f"{plural}/{place}", key)
        for place in after:
            self._filed.setdefault(f"{plural}/{place}", {})[key] = None
        if plural in (DEPLOYMENTS.plural, REPLICASETS.plural):
            if new is None:
                self._by_uid.pop(uid, None)
            else:
                self._by_uid[uid] = key
        if plural == ENDPOINTSLICES.plural:
            self._wake_listed(either)
            return
        workload = "" if plural == SERVICES.plural else self._workload(plural, either)
        if plural == PODS.plural and workload in self._endings:
            self._endings[workload].saw(old, new)
        if plural == PODS.plural and new is None and old is not None:
            self._gone(old)
        self._wake(self.namespace, workload)

    def _wake_listed(self, endpoint_slice: JsonObject) -> None:
        """Whose pods it lists; all, where it lists none that is known."""
        pods = self._copies[PODS.plural].objects
        listed = [place.removeprefix("pod/") for place in _places(ENDPOINTSLICES.plural, endpoint_slice)]
        found = [pods[self.namespace, name] for name in listed if (self.namespace, name) in pods]
        for workload in {self._workload(PODS.plural, one): None for one in found} or {"": None}:
            self._wake(self.namespace, workload)

    def _workload(self, plural: str, obj: JsonObject) -> str:
        """Which workload an object belongs to; "" where its owner is not known (yet)."""
        if plural == PODS.plural:
            obj = self._owner(REPLICASETS.plural, obj)
        if plural != DEPLOYMENTS.plural and obj:
            obj = self._owner(DEPLOYMENTS.plural, obj)
        return str(_labels(obj).get(WORKLOAD_LABEL) or _name(obj)) if obj else ""

    def _owner(self, plural: str, obj: JsonObject) -> JsonObject:
        key = self._by_uid.get(maker_uid(obj))
        return self._copies[plural].objects.get(key, {}) if key is not None else {}

    def _unfile(self, place: str, key: Key) -> None:
        found = self._filed.get(place)
        if found is not None:
            found.pop(key, None)
            if not found:
                del self._filed[place]


class Plot:
    """An ``Api`` whose lists of a namespace's objects are those of one workload; all else goes to the API."""

    def __init__(self, api: Api, territory: Territory, workload: str, services: tuple[str, ...]) -> None:
        self._api, self._territory = api, territory
        self._workload, self.services = workload, services

    async def list(self, resource: Resource, select: Selection = ALL, resource_version: str = "") -> Listing:
        is_kept = resource in KINDS and select == Selection(self._territory.namespace) and not resource_version
        if not is_kept:
            return await self._api.list(resource, select, resource_version)
        if self._territory.error is not None:
            raise self._territory.error
        found = self._territory.objects_of(self._workload, resource.plural, self.services)
        return Listing([*found], "")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)


def _labels(obj: JsonObject) -> dict[str, str]:
    found: dict[str, str] = (obj.get("metadata") or {}).get("labels") or {}
    return found


def _name(obj: JsonObject) -> str:
    return str(obj["metadata"]["name"])


def _selector(service: JsonObject) -> dict[str, str]:
    found: dict[str, str] = (service.get("spec") or {}).get("selector") or {}
    return found


def _places(plural: str, obj: JsonObject | None) -> dict[str, None]:
    """Where an object is filed: under its controller, its workload, its name, what it selects, whom it lists."""
    if obj is None:
        return {}
    labels = _labels(obj)
    if plural == DEPLOYMENTS.plural:
        return {
            f"of/{_name(obj)}": None,
            **({f"of/{labels[WORKLOAD_LABEL]}": None} if WORKLOAD_LABEL in labels else {}),
        }
    if plural == REPLICASETS.plural:
        return {f"by/{controller_uid(obj)}": None}
    if plural == PODS.plural:
        return {f"by/{maker_uid(obj)}": None}
    if plural == SERVICES.plural:
        places = {f"is/{_name(obj)}": None}
        if WORKLOAD_LABEL in labels:
            places[f"of/{labels[WORKLOAD_LABEL]}"] = None
        for key, value in sorted(_selector(obj).items())[:1]:  # what it selects bears this one among others
            places[f"on/{key}={value}"] = None
        return places
    places = {f"svc/{labels[SERVICE_LABEL]}": None} if SERVICE_LABEL in labels else {}
    for one in obj.get("endpoints") or ():
        target = one.get("targetRef") or {}
        if target.get("kind") == "Pod" and target.get("name"):
            places[f"pod/{target['name']}"] = None
    return places


class Territories:
    """The namespaces that are watched now. One is kept for a while after its last release came to rest."""

    KEPT_SECONDS = 30.0

    def __init__(self, api: Api, wake: Wake, gone: Gone = lambda pod: None) -> None:
        self._api, self._wake, self._gone = api, wake, gone
        self._open: dict[str, tuple[Territory, asyncio.Task[None]]] = {}
        self._users: dict[str, dict[str, None]] = {}
        self._closing: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def enter(self, namespace: str, workload: str) -> Territory:
        """Watched from now on, for ``workload``. Returns once every copy is in."""
        self._users.setdefault(namespace, {})[workload] = None
        closing = self._closing.pop(namespace, None)
        if closing is not None:
            closing.cancel()
        found = self._open.get(namespace)
        if found is None:
            territory = Territory(self._api, namespace, self._wake, self._gone)
            task = asyncio.get_running_loop().create_task(territory.run(), name=f"territory {namespace}")
            task.add_done_callback(lambda done: self._ended(namespace, done))
            found = self._open[namespace] = (territory, task)
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                await found[0].synced()
        except TimeoutError as error:
            why = found[0].error or "no answer"
            raise Unreachable(f"objects of namespace {namespace} are not listed yet: {why}") from error
        return found[0]

    def leave(self, namespace: str, workload: str) -> None:
        """``workload`` rests."""
        users = self._users.get(namespace)
        if users is None or workload not in users:
            return
        del users[workload]
        if namespace in self._open:
            self._open[namespace][0].forget(workload)
        if not users and namespace not in self._closing:
            later = asyncio.get_running_loop().call_later(self.KEPT_SECONDS, self._close, namespace)
            self._closing[namespace] = later

    def close(self) -> None:
        for namespace in list(self._open):
            self._close(namespace)

    def _close(self, namespace: str) -> None:
        closing = self._closing.pop(namespace, None)
        if closing is not None:
            closing.cancel()
        self._users.pop(namespace, None)
        found = self._open.pop(namespace, None)
        if found is not None:
            found[1].cancel()

    def _ended(self, namespace: str, task: asyncio.Task[None]) -> None:
        """A watch that fails by a mistake of ours is begun anew, with the next turn of a release there."""
        found = self._open.get(namespace)
        if found is not None and found[1] is task:
            self._close(namespace)
            self._wake(namespace, "")
