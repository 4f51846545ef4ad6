"""Stories of controllers: what a Deployment, its Service and its budget make of what happens to them."""

from __future__ import annotations

from tests.realcluster.controllers_twin import World
from tests.realcluster.fake_kubelet import NODE
from tests.realcluster.objects import budget, deployment, pod, service

from tidegate.client.prepare.plan import PrepareOptions
from tidegate.client.prepare.run import prepare_service
from tidegate.client.prepare.scene import About
from tidegate.kube.api import DEPLOYMENTS, PODDISRUPTIONBUDGETS, PODS, SERVICES, Deletion, Patch

COST = "controller.kubernetes.io/pod-deletion-cost"


def web(name="web", **spec):
    made = deployment(name, **spec)
    template = made["spec"]["template"]["spec"]
    template["nodeName"] = NODE
    template["containers"][0]["ports"] = [{"name": "http", "containerPort": 8080}]
    return made


def image(tag):
    return {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": f"app:{tag}"}]}}}}


async def rollout(world: World) -> None:
    """Created with everything around it, updated, updated again, rolled back."""
    await world.create(SERVICES, service("web", ports=[{"port": 80, "targetPort": "http", "name": "http"}]))
    await world.create(PODDISRUPTIONBUDGETS, budget("web", maxUnavailable=1))
    await world.create(DEPLOYMENTS, web(replicas=3))
    await world.rest("created")
    await world.patch(DEPLOYMENTS, "web", image(2), "strategic")
    await world.rest("updated")
    await world.patch(DEPLOYMENTS, "web", image(1), "strategic")
    await world.rest("rolled back")
    await world.patch(DEPLOYMENTS, "web", {"spec": {"paused": True}})
    await world.patch(DEPLOYMENTS, "web", image(3), "strategic")
    await world.rest("paused and updated")
    await world.patch(
        DEPLOYMENTS, "web", {"spec": {"paused": None, "strategy": {"type": "Recreate", "rollingUpdate": None}}}
    )
    await world.rest("resumed, to recreate")
    await world.events("in all")


async def cut_and_restored(world: World) -> None:
    """A pod loses its label: released, replaced, out of the slices; gets it back: one too many, the cheapest goes."""
    await world.create(SERVICES, service("web"))
    await world.create(SERVICES, service("bare", clusterIP="None"))
    await world.create(DEPLOYMENTS, web(replicas=3))
    await world.create(PODDISRUPTIONBUDGETS, budget("web", minAvailable="60%"))
    await world.rest("created")
    first = (await world.pods())[0]
    await world.patch(PODS, first, {"metadata": {"labels": {"app": "cut"}}})
    await world.rest("cut")
    cheap = (await world.pods("app=web"))[-1]
    await world.patch(PODS, cheap, {"metadata": {"annotations": {COST: "-5"}}})
    await world.patch(PODS, first, {"metadata": {"labels": {"app": "web"}}})
    await world.rest("restored")
    assert cheap not in await world.pods()
    await world.patch(PODS, first, {"metadata": {"annotations": {COST: "100"}}})
    await world.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 1}})
    await world.rest("scaled down")
    assert await world.pods() == [first]
    await world.events("in all")


async def services(world: World) -> None:
    """A Service whose ports, selector and promises change, and that goes; a pod that is not ready, one that ends."""
    await world.create(DEPLOYMENTS, web(replicas=2))
    await world.create(SERVICES, service("web"))
    await world.rest("created")
    await world.patch(SERVICES, "web", {"spec": {"ports": [{"port": 81, "targetPort": "http"}]}})
    await world.rest("by name")
    name = (await world.pods())[0]
    now = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    await world.api.patch(PODS, name, Patch({"status": {"conditions": [now]}}, "strategic", "status"), world.namespace)
    await world.rest("not ready")
    await world.patch(SERVICES, "web", {"spec": {"publishNotReadyAddresses": True}})
    await world.rest("published")
    await world.patch(SERVICES, "web", {"spec": {"selector": {"app": "other"}}})
    await world.rest("selects nothing")
    await world.patch(SERVICES, "web", {"spec": {"selector": {"app": "web"}, "publishNotReadyAddresses": False}})
    await world.rest("selects again")
    await world.api.patch(PODS, name, Patch({"status": {"phase": "Failed"}}, "strategic", "status"), world.namespace)
    await world.rest("a pod has failed")
    await world.patch(SERVICES, "web", {"metadata": {"labels": {"tier": "front"}}})
    await world.rest("labelled")
    await world.api.delete(SERVICES, "web", world.namespace)
    await world.rest("without the Service")
    await world.events("in all")


async def owners(world: World) -> None:
    """Orphans, adoption, cascades."""
    await world.create(SERVICES, service("web"))
    await world.create(DEPLOYMENTS, web(replicas=2))
    await world.rest("created")
    await world.api.delete(DEPLOYMENTS, "web", world.namespace, Deletion(propagation="Orphan"))
    await world.rest("orphaned")
    await world.create(DEPLOYMENTS, web(replicas=2))
    await world.rest("adopted")
    stray = pod("stray", nodeName=NODE)
    await world.create(PODS, stray)
    await world.rest("a pod of nobody")
    await world.api.delete(DEPLOYMENTS, "web", world.namespace, Deletion(propagation="Foreground"))
    await world.rest("foreground")
    await world.create(DEPLOYMENTS, web("again", replicas=1))
    await world.rest("another")
    await world.api.delete(DEPLOYMENTS, "again", world.namespace, Deletion(propagation="Background"))
    await world.rest("background")
    await world.events("in all")


async def prepared_in_place(world: World) -> None:
    """A Deployment and its ReplicaSet are given one more label while it is paused: nothing to roll out, ever."""
    about = About(world.namespace, "web", ("web",))
    await world.create(SERVICES, service("web"))
    await world.create(DEPLOYMENTS, web(replicas=2))
    await world.rest("created")
    await world.patch(DEPLOYMENTS, "web", image(2), "strategic")
    await world.rest("updated")
    there = PrepareOptions(in_place=True, settle_seconds=0.5, timeout_seconds=60, seed=1)
    assert (await prepare_service(world.api, about, there)).result == "prepared"
    await world.rest("prepared")
    await world.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 3}})
    await world.rest("scaled up")
    await world.patch(DEPLOYMENTS, "web", image(3), "strategic")
    await world.rest("updated again")
    back = PrepareOptions(is_abort=True, settle_seconds=0.5, timeout_seconds=60, seed=1)
    assert (await prepare_service(world.api, about, back)).result == "aborted"
    await world.rest("taken back")


async def prepared_by_rollout(world: World) -> None:
    """The label comes with a rollout, the older ReplicaSet is marked; all of it is taken back."""
    about = About(world.namespace, "web", ("web",))
    await world.create(SERVICES, service("web"))
    await world.create(DEPLOYMENTS, web(replicas=2))
    await world.rest("created")
    there = PrepareOptions(settle_seconds=0.5, timeout_seconds=60, seed=1)
    assert (await prepare_service(world.api, about, there)).result == "prepared"
    await world.rest("prepared")
    back = PrepareOptions(is_abort=True, settle_seconds=0.5, timeout_seconds=60, seed=1)
    assert (await prepare_service(world.api, about, back)).result == "aborted"
    await world.rest("taken back")


STORIES = (rollout, cut_and_restored, services, owners, prepared_in_place, prepared_by_rollout)
