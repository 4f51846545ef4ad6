"""Stories of Services: what their endpoints are told of zones, families and hosts."""

from __future__ import annotations

from tests.realcluster.controllers_twin import World
from tests.realcluster.objects import pod, service

from tidegate.kube.api import NODES, PODS, SERVICES, Patch
from tidegate.lab.instants import stamp
from tidegate.vtime import now

ZONE = "topology.kubernetes.io/zone"


async def node(world: World, name: str, **labels: str) -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp(now())}
    metadata = {"name": name, "labels": {key.replace("_", "/"): value for key, value in labels.items()}}
    status = {"conditions": [ready]}
    await world.api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status})


async def unready(world: World, name: str) -> None:
    held = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    await world.api.patch(PODS, name, Patch({"status": {"conditions": [held]}}, "strategic", "status"), world.namespace)


async def zones(world: World) -> None:
    """trafficDistribution set, changed, taken away; a pod that is not ready, one on a node without a zone."""
    for name, zone in (("west-1", "west"), ("west-2", "west"), ("east-1", "east")):
        await node(world, name, **{ZONE: zone})
    await node(world, "nowhere")
    for name, where in (("a", "west-1"), ("b", "west-2"), ("c", "east-1")):
        await world.create(PODS, pod(name, nodeName=where))
    await world.create(SERVICES, service("web"))
    await world.rest("without a word")
    await world.patch(SERVICES, "web", {"spec": {"trafficDistribution": "PreferClose"}})
    await world.rest("close")
    await world.patch(SERVICES, "web", {"spec": {"trafficDistribution": "PreferSameNode"}})
    await world.rest("same node")
    await unready(world, "b")
    await world.rest("one is not ready")
    await world.patch(SERVICES, "web", {"spec": {"trafficDistribution": "PreferSameZone"}})
    await world.rest("same zone, one not ready")
    await world.patch(SERVICES, "web", {"metadata": {"labels": {"tier": "front"}}})
    await world.rest("labelled")
    await world.create(PODS, pod("d", nodeName="nowhere"))
    await world.rest("one without a zone")
    await world.patch(SERVICES, "web", {"metadata": {"annotations": {"service.kubernetes.io/topology-mode": "Auto"}}})
    await world.rest("by the older annotation")
    await world.patch(SERVICES, "web", {"metadata": {"annotations": None}})
    await world.rest("by the field again")
    await world.patch(SERVICES, "web", {"spec": {"trafficDistribution": None}})
    await world.rest("anywhere")


STORIES = (zones,)
