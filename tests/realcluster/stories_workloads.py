"""Stories of StatefulSets, DaemonSets and Jobs: created, cut and restored, updated, deleted."""

from __future__ import annotations

from tests.realcluster.controllers_twin import DAEMONSETS, JOBS, STATEFULSETS, World
from tests.realcluster.fake_kubelet import NODE
from tests.realcluster.objects import pod, service
from tests.realcluster.stories_controllers import image, web

from tidegate import vtime
from tidegate.kube.api import NODES, PODS, SERVICES, Deletion, Patch, Selection
from tidegate.lab.instants import stamp

UID_LABEL = "batch.kubernetes.io/controller-uid"


def stateful(name="web", **spec):
    return {**web(name, serviceName=name, **spec), "kind": "StatefulSet"}


def daemon(name, **spec):
    made = {**web(name, **spec), "kind": "DaemonSet"}
    del made["spec"]["replicas"]
    template = made["spec"]["template"]["spec"]
    del template["nodeName"]
    template["nodeSelector"] = {"story": name}
    return made


def job(name="work", **spec):
    container = {"name": "app", "image": "app:1"}
    template = {"spec": {"restartPolicy": "Never", "nodeName": NODE, "containers": [container]}}
    meta = {"name": name}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template, **spec}}


def labelled(value):
    return {"metadata": {"labels": {"app": value}}}


async def stateful_cut_and_restored(world: World) -> None:
    """A pod loses its label and keeps its name: no successor until it has the label back, or is gone."""
    await world.create(SERVICES, service("web", clusterIP="None"))
    await world.create(STATEFULSETS, stateful(replicas=3))
    await world.rest("created")
    await world.patch(PODS, "web-1", labelled("cut"))
    await world.rest("cut")
    await world.patch(PODS, "web-1", labelled("web"))
    await world.rest("restored")
    await world.patch(PODS, "web-0", labelled("cut"))
    await world.rest("the first cut")
    await world.patch(STATEFULSETS, "web", {"spec": {"replicas": 4}})
    await world.rest("and scaled up meanwhile")
    await world.api.delete(PODS, "web-0", world.namespace)
    await world.rest("the cut one deleted", is_final=False)
    await world.patch(STATEFULSETS, "web", {"metadata": {"annotations": {"touched": "yes"}}})
    await world.rest("and the set looked at")
    await world.patch(PODS, "web-2", {"metadata": {"labels": {"statefulset.kubernetes.io/pod-name": "web-9"}}})
    await world.rest("a label of its name changed")
    stray = pod("web-7", nodeName=NODE)
    await world.create(PODS, stray)
    await world.rest("a stray with a fitting name, adopted and ended")
    await world.create(PODS, pod("other", nodeName=NODE))
    await world.rest("a stray without")
    await world.events("in all")


async def stateful_updates(world: World) -> None:
    """Partition, the rest, rollback, OnDelete, scaling."""
    await world.create(STATEFULSETS, stateful(replicas=3, revisionHistoryLimit=1))
    await world.rest("created")
    partition = {"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}}
    await world.patch(STATEFULSETS, "web", partition)
    await world.patch(STATEFULSETS, "web", image(2), "strategic")
    await world.rest("updated from 2 on")
    await world.api.delete(PODS, "web-0", world.namespace)
    await world.rest("an old one deleted, and made again as it was")
    await world.patch(STATEFULSETS, "web", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
    await world.rest("updated")
    await world.patch(STATEFULSETS, "web", image(1), "strategic")
    await world.rest("rolled back")
    await world.patch(STATEFULSETS, "web", image(3), "strategic")
    await world.rest("updated again")
    await world.patch(STATEFULSETS, "web", {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}})
    await world.patch(STATEFULSETS, "web", image(4), "strategic")
    await world.rest("on delete")
    await world.api.delete(PODS, "web-1", world.namespace)
    await world.rest("one deleted")
    await world.patch(STATEFULSETS, "web", {"spec": {"replicas": 1}})
    await world.rest("scaled down")
    await world.api.delete(STATEFULSETS, "web", world.namespace, Deletion(propagation="Foreground"))
    await world.rest("deleted")
    await world.events("in all")


async def stateful_parallel(world: World) -> None:
    """Parallel, with claims and other ordinals; a cut pod holds up those after its batch."""
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    claim["spec"]["resources"] = {"requests": {"storage": "1Gi"}}
    made = stateful(replicas=2, podManagementPolicy="Parallel", ordinals={"start": 2}, volumeClaimTemplates=[claim])
    await world.create(STATEFULSETS, made)
    await world.rest("created")
    await world.patch(PODS, "web-3", labelled("cut"))
    await world.patch(STATEFULSETS, "web", {"spec": {"replicas": 4}})
    await world.rest("cut and scaled up")
    await world.patch(PODS, "web-3", labelled("web"))
    await world.rest("restored")
    await world.patch(STATEFULSETS, "web", {"spec": {"replicas": 1}})
    await world.rest("scaled down")
    await world.end("web-2", "Failed")
    await world.rest("one failed")
    await world.api.delete(STATEFULSETS, "web", world.namespace, Deletion(propagation="Orphan"))
    await world.rest("orphaned")
    made["spec"]["replicas"] = 1
    await world.create(STATEFULSETS, made)
    await world.rest("adopted")
    await world.events("in all")


async def nodes(world: World, story: str, count: int) -> list[str]:
    """Nodes of the story's own."""
    names = [f"{story}-{index + 1}" for index in range(count)]
    for name in names:
        await node(world, name, story)
    return names


async def no_nodes(world: World, story: str) -> None:
    """Other tests count nodes too."""
    for one in (await world.api.list(NODES, Selection())).items:
        if one["metadata"]["name"].startswith(f"{story}-"):
            await world.api.delete(NODES, one["metadata"]["name"])


async def node(world: World, name: str, story: str) -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp(vtime.now())}
    meta = {"name": name, "labels": {"story": story}}
    made = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": {"conditions": [ready]}}
    await world.api.create(NODES, made)


async def daemon_cut_and_restored(world: World) -> None:
    """One pod a node: a cut one is replaced at once; restored, the older one stays."""
    await nodes(world, "cut", 2)
    await world.create(SERVICES, service("web"))
    await world.create(DAEMONSETS, daemon("cut"))
    await world.rest("created")
    first = await world.on("cut-1")
    await world.patch(PODS, first, labelled("cut"))
    await world.rest("cut")
    await world.patch(PODS, first, labelled("web"))
    await world.rest("restored")
    assert first in await world.pods()
    await node(world, "cut-3", "cut")
    await world.rest("a node more")
    await world.api.patch(NODES, "cut-3", Patch({"metadata": {"labels": {"story": "over"}}}))
    await world.rest("a node less")
    await world.api.patch(NODES, "cut-2", Patch({"spec": {"unschedulable": True}}))
    await world.rest("a node cordoned")
    taint = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}
    await world.api.patch(NODES, "cut-1", Patch({"spec": {"taints": [taint]}}))
    await world.patch(DAEMONSETS, "cut", {"metadata": {"labels": {"touched": "yes"}}})
    await world.rest("a node tainted")
    await world.api.patch(NODES, "cut-1", Patch({"spec": {"taints": None}}))
    await world.rest("and untainted")
    await world.end(await world.on("cut-1"), "Failed")
    await world.rest("a pod has failed")
    await world.api.delete(DAEMONSETS, "cut", world.namespace, Deletion(propagation="Foreground"))
    await world.rest("deleted")
    await world.events("in all")
    await no_nodes(world, "cut")


async def daemon_updates(world: World) -> None:
    """maxUnavailable, maxSurge, OnDelete, rollback."""
    await nodes(world, "updates", 3)
    await world.create(DAEMONSETS, daemon("updates", revisionHistoryLimit=1))
    await world.rest("created")
    await world.patch(DAEMONSETS, "updates", image(2), "strategic")
    await world.rest("updated")
    surge = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    await world.patch(DAEMONSETS, "updates", {"spec": {"updateStrategy": surge}})
    await world.patch(DAEMONSETS, "updates", image(1), "strategic")
    await world.rest("rolled back with surge")
    await world.patch(DAEMONSETS, "updates", {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}})
    await world.patch(DAEMONSETS, "updates", image(3), "strategic")
    await world.rest("on delete")
    await world.api.delete(PODS, await world.on("updates-2"), world.namespace)
    await world.rest("one deleted")
    await world.events("so far")  # whether it deletes a pod once or twice that it has just adopted is chance
    await world.api.delete(DAEMONSETS, "updates", world.namespace, Deletion(propagation="Orphan"))
    await world.rest("orphaned")
    await world.create(DAEMONSETS, daemon("updates"))
    await world.rest("adopted")
    await no_nodes(world, "updates")


async def job_cut_and_done(world: World) -> None:
    """A cut pod does not count and is replaced; what ends is counted once."""
    await world.create(JOBS, job(completions=4, parallelism=2))
    await world.rest("created")
    first = (await world.pods())[0]
    await world.patch(PODS, first, {"metadata": {"labels": {UID_LABEL: "cut"}}})
    await world.rest("cut")
    uid = (await world.api.get(JOBS, "work", world.namespace))["metadata"]["uid"]
    await world.patch(PODS, first, {"metadata": {"labels": {UID_LABEL: uid}}})
    await world.rest("restored: one too many goes")
    for name in await world.pods():
        await world.end(name)
    await world.rest("the first have succeeded")
    await world.patch(JOBS, "work", {"spec": {"parallelism": 1}})
    await world.rest("fewer at once")
    await world.patch(JOBS, "work", {"spec": {"parallelism": 3}})
    await world.rest("more at once")
    await world.api.delete(PODS, (await world.running())[0], world.namespace)
    await world.rest("one deleted counts as failed")
    await world.patch(JOBS, "work", {"spec": {"suspend": True}})
    await world.rest("suspended")
    await world.patch(JOBS, "work", {"spec": {"suspend": False}})
    await world.rest("resumed", is_final=False)
    await world.api.delete(JOBS, "work", world.namespace)
    await world.rest("deleted without a word: orphans", is_final=False)
    await world.events("in all")


async def jobs_end(world: World) -> None:
    """Complete, failed, too late; Indexed."""
    await world.create(JOBS, job("good", completions=2, parallelism=2))
    await world.rest("begun")
    for name in await world.running():
        await world.end(name)
    await world.rest("complete")
    await world.create(JOBS, job("bad", completions=2, parallelism=2, backoffLimit=0))
    await world.rest("another")
    await world.end((await world.running())[0], "Failed")
    await world.rest("failed")
    await world.create(JOBS, job("late", activeDeadlineSeconds=2))
    await world.rest("in a hurry", is_final=False)
    await world.ended("late")
    await world.rest("too late")
    await world.create(JOBS, job("numbered", completions=3, parallelism=2, completionMode="Indexed"))
    await world.rest("indexed")
    for name in await world.running():
        await world.end(name)
    await world.rest("two of three")
    for name in await world.running():
        await world.end(name)
    await world.rest("three of three")
    await world.api.delete(JOBS, "numbered", world.namespace, Deletion(propagation="Background"))
    await world.rest("deleted")
    await world.events("in all")


STORIES = (
    stateful_cut_and_restored,
    stateful_updates,
    stateful_parallel,
    daemon_cut_and_restored,
    daemon_updates,
    job_cut_and_done,
    jobs_end,
)
