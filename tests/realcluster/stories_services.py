"""Stories of Services and budgets: what endpoints are told of zones, which pods a budget counts."""

from __future__ import annotations

from tests.realcluster.controllers_twin import World
from tests.realcluster.fake_kubelet import NODE
from tests.realcluster.objects import budget, configmap, pod, service
from tests.realcluster.stories_controllers import web

from tidegate.kube.api import (
    CONFIGMAPS,
    DEPLOYMENTS,
    EVENTS,
    NODES,
    PODDISRUPTIONBUDGETS,
    PODS,
    SERVICES,
    Patch,
    Selection,
)
from tidegate.kube.errors import ApiError
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


FORMS = {
    "number": {"minAvailable": 2},
    "share": {"minAvailable": "40%"},
    "spare": {"maxUnavailable": 1},
    "spare-share": {"maxUnavailable": "34%"},
    "nothing": {"unhealthyPodEvictionPolicy": "AlwaysAllow"},
}


async def budgets(world: World) -> None:
    """Budgets of every form, each over a Deployment of its own: with all pods, one of them cut, and scaled down."""
    for name, spec in FORMS.items():
        selector = {"matchLabels": {"app": name}}
        made = web(name, replicas=3, selector=selector)
        made["spec"]["template"]["metadata"]["labels"] = {"app": name}
        await world.create(PODDISRUPTIONBUDGETS, budget(name, **spec, selector=selector))
        await world.create(DEPLOYMENTS, made)
    await world.create(PODDISRUPTIONBUDGETS, budget("nobody", selector={"matchLabels": {"app": "nobody"}}))
    await world.rest("managed")
    for name in FORMS:
        first = (await world.pods(f"app={name}"))[0]
        await world.patch(PODS, first, {"metadata": {"labels": {"app": "cut"}}})
    await world.rest("one each was cut and replaced")
    for name in FORMS:
        await world.patch(DEPLOYMENTS, name, {"spec": {"replicas": 0}})
    await world.rest("scaled to nothing")
    await world.events("in all")


async def unmanaged(world: World) -> None:
    """A budget's pods without a controller: counted by number only; one that loses its label stays counted."""
    await world.create(PODDISRUPTIONBUDGETS, budget("number", minAvailable=1))
    for name in ("a", "b", "c"):
        await world.create(PODS, pod(name, nodeName=NODE))
    await world.rest("bare pods")
    await world.patch(PODS, "a", {"metadata": {"labels": {"app": "cut"}}})
    await world.rest("one was cut")
    await world.patch(PODS, "b", {"metadata": {"annotations": {"note": "seen"}}})
    await world.rest("another was touched")


async def share_of_bare_pods(world: World) -> None:
    """A percentage of nobody's replicas is nothing."""
    await world.create(PODDISRUPTIONBUDGETS, budget("share", minAvailable="50%"))
    for name in ("a", "b"):
        await world.create(PODS, pod(name, nodeName=NODE))
    await world.rest("bare pods")
    said = (await world.api.list(EVENTS, Selection(world.namespace))).items
    world.told.append(("said", sorted({one["message"] for one in said if one["reason"] == "UnmanagedPods"})))


async def without_scale(world: World) -> None:
    """A pod whose controller has no scale: the budget fails to sync and allows nothing, unless it is a number."""
    keeper = await world.create(CONFIGMAPS, configmap("keeper"))
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "keeper", "uid": keeper["metadata"]["uid"]}
    made = pod("kept", nodeName=NODE)
    made["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
    await world.create(PODS, made)
    await world.create(PODDISRUPTIONBUDGETS, budget("spare", maxUnavailable=1))
    await world.create(PODDISRUPTIONBUDGETS, budget("number", minAvailable=0))
    await world.rest("kept by a ConfigMap")
    for name in ("spare", "number"):
        await world.patch(PODDISRUPTIONBUDGETS, name, {"metadata": {"labels": {"seen": "again"}}})
    await world.rest("touched")


async def evicted(world: World) -> None:
    """Evictions against a budget that controllers keep: what the pod shows, what the budget counts."""
    await world.create(PODDISRUPTIONBUDGETS, budget("web", minAvailable=2))
    await world.create(DEPLOYMENTS, web(replicas=3))
    await world.rest("created")
    world.kubelet.is_ready = False
    first, second, _ = await world.pods()
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": first}}
    await world.api.create(PODS, eviction, world.namespace, "eviction")
    leaving = await world.api.get(PODS, first, world.namespace)
    shown = [one for one in leaving["status"]["conditions"] if one["type"] == "DisruptionTarget"]
    world.told.append(("the pod", world._stable(shown)))
    try:
        await world.api.create(PODS, {**eviction, "metadata": {"name": second}}, world.namespace, "eviction")
    except ApiError as error:
        world.told.append(("the next", (error.code, error.message)))
    await world.rest("replaced")


async def families(world: World) -> None:
    """Services of one family, of the other, of both, headless; pods with an address of each."""
    world.kubelet.is_dual = True
    for name, spec in (
        ("four", {}),
        ("six", {"ipFamilies": ["IPv6"]}),
        ("both", {"ipFamilyPolicy": "RequireDualStack"}),
        ("prefers", {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}),
        ("headless", {"clusterIP": "None"}),
        ("headless-both", {"clusterIP": "None", "ipFamilyPolicy": "PreferDualStack"}),
    ):
        await world.create(SERVICES, service(name, **spec))
    for name in ("a", "b"):
        await world.create(PODS, pod(name, nodeName=NODE))
    await world.rest("made")
    await world.patch(SERVICES, "four", {"spec": {"ipFamilyPolicy": "PreferDualStack"}})
    await world.patch(SERVICES, "both", {"spec": {"ipFamilyPolicy": "SingleStack"}})
    await world.rest("changed")
    await unready(world, "a")
    await world.rest("one is not ready")


STORIES = (families, zones, budgets, unmanaged, share_of_bare_pods, without_scale, evicted)
