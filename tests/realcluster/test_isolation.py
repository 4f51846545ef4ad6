"""What the real controllers make of a pod that is let go by its revision's label alone (docs/decisions/0003)."""

from __future__ import annotations

import asyncio

import pytest
from tests.realcluster.objects import budget
from tests.realcluster.scene import scene

from tidegate.kube.api import DEPLOYMENTS, PODDISRUPTIONBUDGETS, PODS, REPLICASETS, Patch, Selection

pytestmark = pytest.mark.realcluster

HASH = "pod-template-hash"


def owners(pod):
    return [one["name"] for one in pod["metadata"].get("ownerReferences") or ()]


async def relabelled(here, name, value):
    await here.api.patch(PODS, name, Patch({"metadata": {"labels": {HASH: value}}}), here.namespace)


async def made(here, version):
    """Names of the pods that were created since ``version``, in order, until the API has been silent for 2 s."""
    found = []

    async def follow():
        async for event in here.api.watch(PODS, Selection(here.namespace), version):
            if event.type == "ADDED":
                found.append(event.object["metadata"]["name"])

    following = asyncio.create_task(follow())
    await asyncio.sleep(2)  # realtime: real controllers
    following.cancel()
    return found


async def budgeted(here, **spec):
    """(expected, healthy, allowed) of a budget; one at a time, the controller keeps up only one of two on a pod."""
    await here.api.create(PODDISRUPTIONBUDGETS, budget("web", **spec), here.namespace)
    await asyncio.sleep(1)  # realtime: real controllers
    status = (await here.api.get(PODDISRUPTIONBUDGETS, "web", here.namespace))["status"]
    await here.api.delete(PODDISRUPTIONBUDGETS, "web", here.namespace)
    return status["expectedPods"], status["currentHealthy"], status["disruptionsAllowed"]


async def version_now(here):
    return (await here.api.list(PODS, Selection(here.namespace))).resource_version


async def test_a_pod_without_its_revisions_label_is_let_go_and_replaced_once_and_keeps_its_traffic(real_cluster):
    async with scene(real_cluster, "let-go") as here:
        name = (await here.names())[0]
        hash_ = (await here.api.get(PODS, name, here.namespace))["metadata"]["labels"][HASH]
        before = await here.api.get(DEPLOYMENTS, "web", here.namespace)
        version = await version_now(here)
        await relabelled(here, name, "tidegate-isolated")
        assert len(await made(here, version)) == 1, "replaced once, no churn"

        pod = await here.api.get(PODS, name, here.namespace)
        assert owners(pod) == [] and pod["metadata"]["labels"][HASH] == "tidegate-isolated"
        assert len(await here.names()) == len(await here.routed()) == 4, "it is routed as before, beside three"
        after = await here.api.get(DEPLOYMENTS, "web", here.namespace)
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert {key: after["status"][key] for key in ("replicas", "updatedReplicas", "readyReplicas")} == {
            "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
        }  # fmt: skip
        sets = (await here.api.list(REPLICASETS, Selection(here.namespace))).items
        assert [one["metadata"]["labels"][HASH] for one in sets] == [hash_], "no other revision was made of it"
        # A budget selects it still and counts it as healthy: it allows one disruption more than without it.
        assert await budgeted(here, minAvailable=2) == (4, 4, 2)
        assert await budgeted(here, maxUnavailable=1) == (3, 4, 2)

        # A rollout does not touch it.
        image = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "app:2"}]}}}}
        await here.api.patch(DEPLOYMENTS, "web", Patch(image, "strategic"), here.namespace)
        await made(here, await version_now(here))
        assert name in await here.names() and len(await here.names()) == 4


@pytest.mark.parametrize("turn", range(3))
async def test_two_pods_that_change_places_cost_at_most_one_pod_that_never_was_ready(real_cluster, turn):
    """A restore: the victim is let go, then the other is given back. Were it adopted first, the ReplicaSet would
    delete one that serves. The pod it makes between the two writes is the first to go for as long as it is not Ready;
    of pods that are all Ready and of one age, uids decide (with a kubelet that takes 0 s, another one went here)."""
    async with scene(real_cluster, f"swap-{turn}", start_seconds=0.5) as here:
        first, victim, _ = await here.names()
        hash_ = (await here.api.get(PODS, first, here.namespace))["metadata"]["labels"][HASH]
        await relabelled(here, first, "tidegate-isolated")

        async def is_replaced():
            return len(await here.routed()) == 4

        await here.until(is_replaced)
        kept = set(await here.names())
        version = await version_now(here)
        await relabelled(here, victim, "tidegate-isolated")
        await relabelled(here, first, hash_)
        extra = await made(here, version)
        assert len(extra) <= 1
        assert set(await here.names()) == kept, "nobody but the extra pod went"
        assert owners(await here.api.get(PODS, first, here.namespace))
        assert not owners(await here.api.get(PODS, victim, here.namespace))


async def test_isolated_cut_and_given_back_by_the_command_line(real_cluster):
    """Without agents nothing is verified; who goes, who stays and who is owned by whom is as in the lab."""
    async with scene(real_cluster, "given-back", start_seconds=0.5) as here:
        before = set(await here.names())
        first = min(before)
        await asyncio.sleep(1.1)  # a pod's age is in whole seconds: of pods of one age, uids decide who goes
        ran = await here.tidegate("isolate", f"pod/{first}", "--keep-traffic", "--yes")
        assert ran.code == 0 and "took its place" in ran.out, ran.err

        async def is_replaced():
            return len(await here.routed()) == 4

        await here.until(is_replaced)
        (replacement,) = set(await here.names()) - before
        ran = await here.tidegate("cut", f"pod/{first}", "--yes", "--settle", "300ms")
        assert ran.code == 4 and "assumed" in ran.out, ran.err
        assert first not in await here.names(), "its label app is another"
        ran = await here.tidegate("restore", f"pod/{first}", "--yes", "--settle", "300ms")
        assert ran.code == 4 and f"pod/{replacement} went in its place" in ran.out, ran.out + ran.err
        assert set(await here.names()) == before
        assert owners(await here.api.get(PODS, first, here.namespace))

        async def is_routed():
            return len(await here.routed()) == 3

        await here.until(is_routed)
