"""The same story for kube-controller-manager and for the lab's controllers: what stands at rest, and what was said.

At rest means that nothing was written for a while. Pods are interchangeable: their names, addresses and uids are
replaced by words, lists of them sorted; a ReplicaSet is called by its revision.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.realcluster.fake_kubelet import FakeKubelet, fake_kubelet
from tests.realcluster.settling import has_settled, is_over, is_to_be_claimed

from tidegate import vtime
from tidegate.kube.api import (
    DEPLOYMENTS,
    ENDPOINTS,
    ENDPOINTSLICES,
    EVENTS,
    NAMESPACES,
    PODDISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    SERVICES,
    Api,
    JsonObject,
    Patch,
    Resource,
    Selection,
)
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError
from tidegate.lab.apiserver.local import LocalApi
from tidegate.lab.apiserver.server import ApiServer
from tidegate.lab.config import LabConfig
from tidegate.lab.controllers.affinity import target_node
from tidegate.lab.controllers.run import run_controllers
from tidegate.lab.instants import stamp

STATEFULSETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMONSETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
JOBS = Resource("batch", "v1", "jobs", "Job")
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
WATCHED = (
    DEPLOYMENTS,
    REPLICASETS,
    PODS,
    SERVICES,
    ENDPOINTSLICES,
    ENDPOINTS,
    PODDISRUPTIONBUDGETS,
    STATEFULSETS,
    DAEMONSETS,
    REVISIONS,
    JOBS,
    CLAIMS,
)
REST_SECONDS = 0.3
PASSING = ("TaintManagerEviction", "UnmanagedPods", "NoPods", "ClusterIPNotAllocated", "FailedBinding")
"""Said or not by chance: of a node that nothing heartbeats, of a pod that nobody had adopted at that moment, of an
address the API server's repair loop met before its own allocator; of claims, which the lab binds to nothing."""
REVISION = "deployment.kubernetes.io/revision"

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ADDRESS = re.compile(r"\b(10\.77|10\.96|127\.18)\.\d+\.\d+\b|\bfd(00:10:(96|77)|74:6964:6567:12)::[0-9a-f]+\b")
_DROPPED = ("resourceVersion", "managedFields", "creationTimestamp", "uid", "selfLink")


@dataclass
class World:
    """One side: an API with controllers behind it, and everything that changed in the story's namespace."""

    api: Api
    namespace: str
    kubelet: FakeKubelet
    told: list[tuple[str, Any]] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)
    _lives: dict[str, list[str]] = field(default_factory=dict)
    _sizes: dict[str, list[int]] = field(default_factory=dict)
    _seen: dict[str, str] = field(default_factory=dict)

    async def create(self, resource: Resource, obj: JsonObject) -> JsonObject:
        return await self.api.create(resource, obj, self.namespace)

    async def patch(self, resource: Resource, name: str, body: Any, style: Any = "merge") -> JsonObject:
        return await self.api.patch(resource, name, Patch(body, style), self.namespace)

    async def pods(self, labels: str = "") -> list[str]:
        listed = (await self.api.list(PODS, Selection(self.namespace, labels))).items
        listed.sort(key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))
        return [one["metadata"]["name"] for one in listed if not one["metadata"].get("deletionTimestamp")]

    async def running(self) -> list[str]:
        """The pods that have neither ended nor are about to."""
        listed = {one["metadata"]["name"]: one for one in (await self.api.list(PODS, Selection(self.namespace))).items}
        return [name for name in await self.pods() if listed[name]["status"]["phase"] == "Running"]

    async def on(self, node: str) -> str:
        """The first pod on a node."""
        listed = (await self.api.list(PODS, Selection(self.namespace, fields=f"spec.nodeName={node}"))).items
        return min(one["metadata"]["name"] for one in listed if not one["metadata"].get("deletionTimestamp"))

    async def ended(self, name: str) -> None:
        """Until a Job is over, whatever became of it."""
        async with asyncio.timeout(15):
            while not is_over(await self.api.get(JOBS, name, self.namespace)):
                await asyncio.sleep(0.05)

    async def end(self, pod: str, phase: str = "Succeeded") -> None:
        """The pod's containers have ended."""
        now = {"type": "Ready", "status": "False", "lastTransitionTime": stamp(vtime.now())}
        body = {"status": {"phase": phase, "conditions": [now]}}
        await self.api.patch(PODS, pod, Patch(body, "strategic", "status"), self.namespace)

    async def bind(self) -> None:
        """Stand in for a scheduler, for pods that name their node."""
        while True:
            async for event in self.api.watch(PODS, Selection(self.namespace)):
                pod, node = event.object, target_node(event.object)
                if event.type != "ADDED" or pod["spec"].get("nodeName") or not node:
                    continue
                target = {"apiVersion": "v1", "kind": "Node", "name": node}
                meta = {"name": pod["metadata"]["name"], "namespace": self.namespace}
                binding = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
                with contextlib.suppress(ApiError):
                    await self.api.create(PODS, binding, self.namespace, "binding")

    async def rest(self, what: str, *, is_final: bool = True) -> None:
        """Wait until nothing moves, then write down all that stands and what has come to pass since the last time.

        Nothing is written down at a rest that is not ``is_final``: it may well go on by itself.
        """
        async with asyncio.timeout(25):
            while True:
                before = await self._all()
                if self._is_settled(before):
                    await asyncio.sleep(REST_SECONDS)
                    listed = await self._all()
                    if _versions(listed) == _versions(before) and self._has_seen(listed):
                        break
                await asyncio.sleep(0.05)
        if not is_final:
            return
        for resource, items in listed.items():
            shown = sorted((self._stable(self._plain(one)) for one in items), key=_key)
            self.told.append((f"{what}: {resource.plural}", shown))
        lives = Counter(" > ".join(life) for life in self._lives.values())
        self.told.append((f"{what}: lives of endpoints", dict(sorted(lives.items()))))
        sizes = {self._stable(name): list(life) for name, life in self._sizes.items()}
        self.told.append((f"{what}: sizes of ReplicaSets", dict(sorted(sizes.items()))))

    async def _all(self) -> dict[Resource, list[JsonObject]]:
        return {one: (await self.api.list(one, Selection(self.namespace))).items for one in WATCHED}

    def _has_seen(self, listed: dict[Resource, list[JsonObject]]) -> bool:
        """The watches have told all that the lists show: on a busy machine they come late."""
        return self._seen == _versions(listed)

    def _is_settled(self, listed: dict[Resource, list[JsonObject]]) -> bool:
        """Nothing is on its way as far as objects tell: a slow machine can be quiet for a while."""
        ready: Counter[str] = Counter()
        for one in listed[PODS]:
            conditions = {held["type"]: held["status"] for held in one["status"].get("conditions") or ()}
            if one["metadata"].get("deletionTimestamp") or "Ready" not in conditions:
                return False
            is_counted = conditions["Ready"] == "True" and one["status"]["phase"] == "Running"
            ready.update(owner["uid"] for owner in one["metadata"].get("ownerReferences") or () if is_counted)
        for one in listed[REPLICASETS]:
            status, uid = one["status"], one["metadata"]["uid"]
            counts = (
                status.get("replicas", 0),
                status.get("availableReplicas", 0),
                status.get("terminatingReplicas", 0),
            )
            is_seen = status.get("observedGeneration") == one["metadata"]["generation"]
            if not is_seen or counts != (one["spec"]["replicas"], ready[uid], 0):
                return False
            if any(is_to_be_claimed(pod, one) for pod in listed[PODS]):
                return False
            ready.update({owner["uid"]: ready[uid] for owner in one["metadata"].get("ownerReferences") or ()})
        # kube-controller-manager waits a second where its own cache of slices is stale
        if any(not _is_told(one, listed[PODS], listed[ENDPOINTSLICES]) for one in listed[SERVICES]):
            return False
        runners = (*listed[STATEFULSETS], *listed[DAEMONSETS], *listed[JOBS])
        if not all(has_settled(one, listed[PODS], ready) for one in runners):
            return False
        return all(
            one["status"].get("observedGeneration") == one["metadata"]["generation"]
            and one["status"].get("availableReplicas", 0) == ready[one["metadata"]["uid"]]
            for one in listed[DEPLOYMENTS]
        )

    async def events(self, what: str) -> None:
        """What was said, in any order."""
        said = Counter()
        for one in (await self.api.list(EVENTS, Selection(self.namespace))).items:
            about = one["involvedObject"]["kind"]
            if one["reason"] in PASSING:
                continue
            said[f"{one['type']} {about} {one['reason']}: {self._stable(one['message'])}"] += one.get("count") or 1
        self.told.append((f"{what}: events", dict(sorted(said.items()))))

    def tell(self, what: str, seen: Any) -> None:
        """Write down something seen."""
        self.told.append((what, self._stable(seen)))

    # -- following

    async def follow(self, resource: Resource) -> None:
        while True:
            async for event in self.api.watch(resource, Selection(self.namespace)):
                if event.type not in ("ADDED", "MODIFIED", "DELETED"):
                    continue
                metadata = event.object["metadata"]
                self._seen[metadata["uid"]] = metadata["resourceVersion"]
                if event.type == "DELETED":
                    del self._seen[metadata["uid"]]
                self._learn(event.object)
                if resource is ENDPOINTSLICES:
                    self._live(event.object if event.type != "DELETED" else {"metadata": event.object["metadata"]})
                elif resource is REPLICASETS:
                    name, size = event.object["metadata"]["name"], event.object["spec"]["replicas"]
                    life = self._sizes.setdefault(name, [])
                    if not life or life[-1] != size:
                        life.append(size)

    def _learn(self, obj: JsonObject) -> None:
        name, kind = obj["metadata"]["name"], obj["kind"]
        if kind == "ReplicaSet" and REVISION in (obj["metadata"].get("annotations") or {}):
            self._names.setdefault(name, f"<rs {obj['metadata']['annotations'][REVISION]}>")
        elif kind == "ControllerRevision" and (digest := obj["metadata"]["labels"].get("controller-revision-hash")):
            self._names.setdefault(digest, f"<hash {obj['revision']}>")
        elif kind == "Pod" and "statefulset.kubernetes.io/pod-name" in (obj["metadata"].get("labels") or {}):
            return  # its name is its own
        elif kind == "Pod" and obj["metadata"].get("generateName"):
            self._names.setdefault(name, "<pod>")
        elif kind == "EndpointSlice" and obj["metadata"].get("generateName"):
            self._names.setdefault(name, f"<slice of {obj['metadata']['labels']['kubernetes.io/service-name']}>")

    def _live(self, found: JsonObject) -> None:
        """Each pod's life in each slice: the conditions it went through."""
        inside = found["metadata"]["name"]
        current = {}
        for endpoint in found.get("endpoints") or ():
            words = [word for word in ("ready", "serving", "terminating") if endpoint["conditions"].get(word)]
            current[f"{inside}/{endpoint['targetRef']['name']}"] = "+".join(words) or "not serving"
        for key in {*current, *(key for key in self._lives if key.startswith(f"{inside}/"))}:
            life, now = self._lives.setdefault(key, []), current.get(key, "absent")
            if not life or life[-1] != now:
                life.append(now)

    # -- the same for both

    def _plain(self, obj: JsonObject) -> JsonObject:
        metadata = {key: value for key, value in obj["metadata"].items() if key not in _DROPPED}
        if obj["kind"] == "EndpointSlice":
            metadata.pop("generation", None)  # how changes fall into one write is chance
        if obj["kind"] == "PersistentVolumeClaim":
            metadata.pop("finalizers", None)  # of a controller (pvc-protection) that the lab, without volumes, has not
        if obj["kind"] == "Endpoints":  # of a deprecated kind; the lab writes it on slices only
            metadata.pop("annotations", None)
        return {**obj, "metadata": metadata}

    def _stable(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {
                self._stable(name): self._stable(item, name) for name, item in value.items() if name not in _DROPPED
            }
        if isinstance(value, list):
            items = [self._stable(item) for item in value if "openshift" not in json.dumps(item, default=str)[:80]]
            return (
                sorted(items, key=_key)
                if key in ("endpoints", "addresses", "conditions", "notReadyAddresses")
                else items
            )
        if not isinstance(value, str):
            return value
        for name in sorted(self._names, key=len, reverse=True):
            value = value.replace(name, self._names[name])
        value = re.sub(r"(?<=<rs )(\d+)>-[a-z0-9]{5}\b", r"\1 pod>", value)
        value = re.sub(r"kube-api-access-[a-z0-9]{5}", "kube-api-access", value)
        if key in ("pod-template-hash", "generateName") or re.fullmatch(r"[a-z0-9]{8,10}", value):
            return "<hash>" if key == "pod-template-hash" else re.sub(r"-[a-z0-9]{8,10}-$", "-<hash>-", value)
        value = _UID.sub("<uid>", _TIME.sub("<time>", _ADDRESS.sub("<ip>", value)))
        return value.replace(self.namespace, "<namespace>")


def _versions(listed: dict[Resource, list[JsonObject]]) -> dict[str, str]:
    metadata = [one["metadata"] for items in listed.values() for one in items]
    return {one["uid"]: one["resourceVersion"] for one in metadata}


def _is_told(service: JsonObject, pods: list[JsonObject], slices: list[JsonObject]) -> bool:
    """Whether the slices say of a Service what they must, as far as pods and the Service tell."""
    name = service["metadata"]["name"]
    own = [one for one in slices if one["metadata"]["labels"]["kubernetes.io/service-name"] == name]
    families = service["spec"].get("ipFamilies") or ["IPv4"]
    return _is_hinted(service, own) and all(
        _expected(service, pods, family) == _listed([one for one in own if one["addressType"] == family])
        for family in families
    )


def _expected(service: JsonObject, pods: list[JsonObject], family: str) -> dict[str, bool]:
    """Pods a Service must list by their address of one family, and whether as ready."""
    spec, found = service["spec"], {}
    for one in pods:
        labels = one["metadata"].get("labels") or {}
        is_ready = any((held["type"], held["status"]) == ("Ready", "True") for held in one["status"]["conditions"])
        has_address = any((":" in held["ip"]) == (family == "IPv6") for held in one["status"].get("podIPs") or ())
        if one["status"]["phase"] == "Running" and has_address and spec["selector"].items() <= labels.items():
            found[one["metadata"]["name"]] = is_ready or bool(spec.get("publishNotReadyAddresses"))
    return found


def _listed(slices: list[JsonObject]) -> dict[str, bool]:
    return {
        endpoint["targetRef"]["name"]: endpoint["conditions"]["ready"]
        for one in slices
        for endpoint in one.get("endpoints") or ()
    }


def _is_hinted(service: JsonObject, slices: list[JsonObject]) -> bool:
    """Whether ready endpoints have the hints that the Service asks for, and no others."""
    wanted = service["spec"].get("trafficDistribution")
    if "service.kubernetes.io/topology-mode" in (service["metadata"].get("annotations") or {}):
        wanted = None
    for one in slices:
        for endpoint in one.get("endpoints") or ():
            hints = endpoint.get("hints") or {}
            has_zone, has_node = bool(hints.get("forZones")), bool(hints.get("forNodes"))
            needs_zone = bool(wanted and endpoint.get("zone"))
            if endpoint["conditions"]["ready"] and (has_zone, has_node) != (needs_zone, wanted == "PreferSameNode"):
                return False
    return True


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@contextlib.asynccontextmanager
async def world(api: Api, namespace: str) -> AsyncIterator[World]:
    with contextlib.suppress(ApiError):
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    async with fake_kubelet(api, namespace) as kubelet:
        found = World(api, namespace, kubelet)
        following = [asyncio.create_task(found.follow(resource)) for resource in WATCHED]
        following.append(asyncio.create_task(found.bind()))
        try:
            yield found
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)


@contextlib.asynccontextmanager
async def lab_controllers() -> AsyncIterator[Api]:
    """The lab's API server and controllers on this loop."""
    api = LocalApi(ApiServer(random.Random(1)))
    running = asyncio.create_task(run_controllers(api, LabConfig()))
    try:
        yield api
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def tell_both(kubeconfig: str, stories: Iterable[Any]) -> dict[str, tuple[list[Any], list[Any]]]:
    """What both told, (real, lab), by the story's name. All of them at once, each in a namespace of its own."""
    async with open_api(kubeconfig=kubeconfig) as real, lab_controllers() as lab:

        async def tell(story: Any) -> tuple[list[Any], list[Any]]:
            namespace = f"controllers-{story.__name__.replace('_', '-')}"
            async with world(real, namespace) as one, world(lab, namespace) as two:
                await asyncio.gather(story(one), story(two))
                return one.told, two.told

        told = await asyncio.gather(*(tell(story) for story in stories))
        return {story.__name__: one for story, one in zip(stories, told, strict=True)}
