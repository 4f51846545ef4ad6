"""An API server with ten thousand Releases at rest, and a Deployment controller in a few lines: what an operator sees.

No kubelet and no node: pods are ready when they are made and end as if their gates had verified it. Run by itself
(``python -m bench.operator_world RELEASES NAMESPACES``) it serves on a port, which it prints, and takes orders by line.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import Any

from tidegate.kube import wire
from tidegate.kube.api import (
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    RELEASES,
    REPLICASETS,
    Deletion,
    JsonObject,
    Patch,
    Selection,
)
from tidegate.lab.apiserver.kinds.plain import SpecStrategy
from tidegate.lab.apiserver.local import LocalApi
from tidegate.lab.apiserver.registry import Row, Subresource
from tidegate.lab.apiserver.server import ApiServer
from tidegate.model.names import DRAIN_RESULT, SYSTEM_NAMESPACE
from tidegate.model.workload import HASH_LABEL
from tidegate.release import template as templates

REVISION = "deployment.kubernetes.io/revision"


def template_of(name: str, image: str) -> JsonObject:
    """A small pod with a gate."""
    container = {
        "name": "app",
        "image": image,
        "ports": [{"containerPort": 8080}],
        "env": [{"name": "LEVEL", "value": "info"}, {"name": "REGION", "value": "north"}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }
    bare = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    return templates.gated(bare, "0" * 32)


class World:
    """``api`` is the server's own."""

    def __init__(self) -> None:
        self.server = ApiServer(random.Random(0))
        self.api = LocalApi(self.server)
        status = Subresource("status", "Release", ("get", "patch", "update"))
        self.server.registry.add(Row(RELEASES, SpecStrategy(), subresources=(status,)))

    async def furnish(self, releases: int, namespaces: int) -> None:
        """Releases that are done, and their Deployments, ReplicaSets and pods."""
        for name in (SYSTEM_NAMESPACE, *(f"ns-{number}" for number in range(namespaces))):
            await self.api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for number in range(releases):
            await self._one(f"ns-{number % namespaces}", f"web-{number}")

    async def _one(self, namespace: str, name: str) -> None:
        spec = {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": template_of(name, "registry.example/app:1"),
        }
        made = await self.api.create(
            DEPLOYMENTS, {"metadata": {"name": name, "namespace": namespace}, "spec": spec}, namespace
        )
        await self.settle(made)
        revision = f"{number_of(name):010x}"
        release = {"metadata": {"name": name, "namespace": namespace}, "spec": {"workload": name}}
        stored = await self.api.create(RELEASES, release, namespace)
        at = "2026-01-01T00:00:00Z"
        kinds = ("Accepted", "Progressing", "Healthy", "Routed", "Complete")
        conditions = [
            {"type": kind, "status": "True", "reason": "Done", "message": "1 of 1 pods", "lastTransitionTime": at}
            for kind in kinds
        ]
        status = {
            "phase": "done", "reason": "1 of 1 pods are of it, no other is left", "revision": revision,
            "fingerprint": templates.fingerprint(spec["template"]), "round": 1, "generation": 1, "ready": "1/1",
            "notes": [{"at": 1767225600.0, "text": "set template: the controller replaces pod by pod"}] * 5,
            "history": [{"revision": f"r{one}", "images": {"app": f"registry.example/app:{one}"}} for one in range(5)],
            "observedGeneration": 1, "conditions": conditions,
        }  # fmt: skip
        await self.api.replace(RELEASES, {**stored, "status": status}, "status")

    # --- the controller ---

    async def control(self) -> None:
        """Bring every Deployment's pods to its template, for ever."""
        version = (await self.api.list(DEPLOYMENTS)).resource_version
        async for event in self.api.watch(DEPLOYMENTS, Selection(), version):
            obj = event.object
            seen = (obj.get("status") or {}).get("observedGeneration")
            if event.type != "DELETED" and seen != obj["metadata"]["generation"]:
                await self.settle(obj)

    async def settle(self, deployment: JsonObject) -> None:
        """One pod of what the template says, none of anything else."""
        metadata, spec = deployment["metadata"], deployment["spec"]
        namespace, name, generation = metadata["namespace"], metadata["name"], metadata["generation"]
        mark = f"{hash(json.dumps(spec['template'], sort_keys=True)) & 0xFFFFFFFFFF:010x}"
        old = [one for one in await self._owned(REPLICASETS, namespace, name) if one["spec"].get("replicas")]
        if all(one["metadata"]["labels"][HASH_LABEL] != mark for one in old):
            made = await self._replicaset(deployment, mark)
            await self._pod(made)
            for one in old:
                await self._end(one)
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
        await self.api.patch(
            DEPLOYMENTS,
            name,
            Patch({"status": {"observedGeneration": generation, **counts}}, "merge", "status"),
            namespace,
        )

    async def _owned(self, kind: Any, namespace: str, name: str) -> list[JsonObject]:
        return (await self.api.list(kind, Selection(namespace, labels=f"app={name}"))).items

    async def _replicaset(self, deployment: JsonObject, mark: str) -> JsonObject:
        metadata, spec = deployment["metadata"], deployment["spec"]
        labels = {"app": metadata["name"], HASH_LABEL: mark}
        template = {**spec["template"], "metadata": {**spec["template"]["metadata"], "labels": labels}}
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"]}
        return await self.api.create(
            REPLICASETS,
            {
                "metadata": {
                    "name": f"{metadata['name']}-{mark}", "namespace": metadata["namespace"], "labels": labels,
                    "annotations": {REVISION: str(metadata["generation"])},
                    "ownerReferences": [{**owner, "controller": True}],
                },
                "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
            },
            metadata["namespace"],
        )  # fmt: skip

    async def _pod(self, replicaset: JsonObject) -> None:
        metadata = replicaset["metadata"]
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": metadata["name"], "uid": metadata["uid"]}
        template = replicaset["spec"]["template"]
        stored = await self.api.create(
            PODS,
            {
                "metadata": {
                    "name": f"{metadata['name']}-x", "namespace": metadata["namespace"],
                    "labels": template["metadata"]["labels"],
                    "annotations": template["metadata"].get("annotations") or {},
                    "ownerReferences": [{**owner, "controller": True}],
                },
                "spec": {**template["spec"], "nodeName": "node-1"},
            },
            metadata["namespace"],
        )  # fmt: skip
        status = {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        await self.api.replace(PODS, {**stored, "status": status}, "status")

    async def _end(self, replicaset: JsonObject) -> None:
        metadata = replicaset["metadata"]
        namespace, pod = metadata["namespace"], f"{metadata['name']}-x"
        await self.api.patch(REPLICASETS, metadata["name"], Patch({"spec": {"replicas": 0}}), namespace)
        said = json.dumps({"result": "verified", "reason": "", "stragglers": [], "seconds": 1.0})
        await self.api.patch(PODS, pod, Patch({"metadata": {"annotations": {DRAIN_RESULT: said}}}), namespace)
        await self.api.delete(PODS, pod, namespace, Deletion(grace_seconds=0))

    # --- orders ---

    async def change(self, count: int, step: int, namespaces: int) -> None:
        """Ask ``count`` Releases, every ``step``-th, for another image."""
        for number in range(0, count * step, step):
            patch = Patch({"spec": {"images": {"app": "registry.example/app:2"}}})
            await self.api.patch(RELEASES, f"web-{number}", patch, f"ns-{number % namespaces}")

    async def left(self, count: int, step: int, namespaces: int) -> int:
        """How many of those have not come to their end."""
        done = 0
        for number in range(0, count * step, step):
            found = await self.api.get(RELEASES, f"web-{number}", f"ns-{number % namespaces}")
            status = found["status"]
            done += status["phase"] == "done" and status["generation"] == found["metadata"]["generation"]
        return count - done


def number_of(name: str) -> int:
    return int(name.rpartition("-")[2])


async def main(releases: int, namespaces: int) -> None:
    world = World()
    await world.furnish(releases, namespaces)
    controlling = asyncio.create_task(world.control())
    async with wire.serving(world.server.exchange, "127.0.0.1") as server:
        print(server.port, flush=True)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while line := await reader.readline():
            verb, *numbers = line.decode().split()
            given = [int(one) for one in numbers]
            if verb == "change":
                await world.change(given[0], given[1], namespaces)
                print("changed", flush=True)
            elif verb == "left":
                print(await world.left(given[0], given[1], namespaces), flush=True)
    controlling.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
