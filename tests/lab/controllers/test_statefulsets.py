"""StatefulSets: order and names, updates from the top, and a cut pod that keeps its name from its successor."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.kube.api import EVENTS, PODS, SERVICES, Deletion, Patch
from tidegate.lab.controllers.kinds import CLAIMS, REVISIONS, STATEFULSETS

from .controller_world import NAMESPACE, Cluster, Habits, image, service
from .transcript import Transcript
from .workloads import labelled, rolled_out, stateful, status

TOLD = (STATEFULSETS, REVISIONS, PODS, EVENTS)


async def names(cluster, labels="app=web"):
    return sorted(one["metadata"]["name"] for one in await cluster.listed(PODS, labels))


def test_pods_come_in_order_are_updated_from_the_top_and_go_in_reverse(golden):
    async def story():
        async with Cluster() as cluster:
            transcript = Transcript(cluster, *TOLD)
            await asyncio.sleep(0.01)
            await cluster.create(STATEFULSETS, stateful(3))
            await rolled_out(cluster, STATEFULSETS, 3)
            transcript.tell("set image app:2")
            await cluster.patch(STATEFULSETS, "web", image("app:2"), "json")
            await rolled_out(cluster, STATEFULSETS, 3)
            transcript.tell("scale to 1")
            scale = Patch({"spec": {"replicas": 1}}, subresource="scale")
            await cluster.api.patch(STATEFULSETS, "web", scale, NAMESPACE)
            await rolled_out(cluster, STATEFULSETS, 1)
            await asyncio.sleep(2)
            return transcript.text()

    golden("controllers/statefulset.txt", vtime.run(story()))


def test_a_cut_pod_is_released_and_taken_back_and_has_no_successor_meanwhile(golden):
    async def story():
        async with Cluster() as cluster:
            await cluster.create(SERVICES, service())
            await cluster.create(STATEFULSETS, stateful(3))
            await rolled_out(cluster, STATEFULSETS, 3)
            before = (await cluster.get(PODS, "web-1"))["metadata"]["uid"]
            transcript = Transcript(cluster, *TOLD)
            await asyncio.sleep(0.01)
            transcript.tell("label web-1 app=web-cut")
            await cluster.patch(PODS, "web-1", labelled("web-cut"))
            await asyncio.sleep(5)
            assert await names(cluster) == ["web-0", "web-2"]
            assert "ownerReferences" not in (await cluster.get(PODS, "web-1"))["metadata"]
            assert {one["targetRef"]["name"] for one in await cluster.endpoints()} == {"web-0", "web-2"}
            transcript.tell("scale to 4: OrderedReady waits for web-1")
            await cluster.patch(STATEFULSETS, "web", {"spec": {"replicas": 4}})
            await asyncio.sleep(5)
            assert await names(cluster) == ["web-0", "web-2"]
            transcript.tell("label it app=web")
            await cluster.patch(PODS, "web-1", labelled("web"))
            await rolled_out(cluster, STATEFULSETS, 4)
            assert (await cluster.get(PODS, "web-1"))["metadata"]["uid"] == before
            return transcript.text()

    golden("controllers/statefulset-cut-and-restore.txt", vtime.run(story()))


def test_the_successor_of_a_cut_pod_that_is_deleted_comes_at_the_next_try_minutes_later_and_nothing_is_said():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(STATEFULSETS, stateful(2))
            await rolled_out(cluster, STATEFULSETS, 2)
            await cluster.patch(PODS, "web-1", labelled("cut"))
            said = len(await cluster.listed(EVENTS))
            await asyncio.sleep(300)
            assert len(await cluster.listed(EVENTS)) == said
            await cluster.api.delete(PODS, "web-1", NAMESPACE, Deletion(grace_seconds=0))
            return await cluster.until(lambda: is_back(cluster, "web-1"), 60)

    # Tries come 5 ms * 2^n apart: after 0.005 * (2^16 - 1) = 327.7 s, of which 300 are over.
    assert vtime.run(story()) == pytest.approx(27.7, abs=0.2)


async def is_back(cluster, name):
    return name in await names(cluster)


def test_a_pod_that_loses_more_than_its_selected_label_is_taken_for_what_its_name_says():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(STATEFULSETS, stateful(2))
            await rolled_out(cluster, STATEFULSETS, 2)
            await cluster.patch(PODS, "web-1", labelled("other", "statefulset.kubernetes.io/pod-name"))
            await asyncio.sleep(1)
            found = (await cluster.get(PODS, "web-1"))["metadata"]["labels"]
            assert found["statefulset.kubernetes.io/pod-name"] == "web-1"
            assert found["apps.kubernetes.io/pod-index"] == "1"
            said = [one["message"] for one in await cluster.listed(EVENTS) if one["reason"] == "SuccessfulUpdate"]
            assert said == ["Update Pod web-1 in StatefulSet web successful"]

    vtime.run(story())


def test_only_pods_with_a_fitting_name_are_adopted():
    async def story():
        async with Cluster() as cluster:
            meta = {"name": "stray", "labels": {"app": "web"}}
            spec = {"containers": [{"name": "c", "image": "app:1"}]}
            await cluster.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
            await cluster.create(
                PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "name": "web-0"}, "spec": spec}
            )
            await cluster.create(STATEFULSETS, stateful(1))
            await asyncio.sleep(5)
            assert "ownerReferences" not in (await cluster.get(PODS, "stray"))["metadata"]
            return (await cluster.get(PODS, "web-0"))["metadata"].get("ownerReferences")

    owners = vtime.run(story())
    assert [one["kind"] for one in owners] == ["StatefulSet"]


def test_parallel_makes_all_at_once_and_a_taken_name_holds_up_what_is_after_its_batch():
    async def story():
        async with Cluster(habits=Habits(ready=lambda pod: pod["metadata"]["name"] != "web-0")) as cluster:
            await cluster.create(STATEFULSETS, stateful(3, podManagementPolicy="Parallel"))
            await asyncio.sleep(2)
            assert await names(cluster) == ["web-0", "web-1", "web-2"]
            await cluster.patch(PODS, "web-1", labelled("cut"))
            await cluster.patch(STATEFULSETS, "web", {"spec": {"replicas": 6}})
            await asyncio.sleep(5)
            assert await names(cluster) == ["web-0", "web-2"]  # batches of one, two: web-0; web-1 and web-2; then none
            await cluster.patch(PODS, "web-1", labelled("web"))
            await asyncio.sleep(2)
            return await names(cluster)

    assert vtime.run(story()) == [f"web-{number}" for number in range(6)]


def test_ordered_ready_waits_for_a_pod_that_does_not_become_ready():
    async def story():
        async with Cluster(habits=Habits(ready=lambda pod: pod["metadata"]["name"] != "web-1")) as cluster:
            await cluster.create(STATEFULSETS, stateful(3))
            await asyncio.sleep(30)
            return await names(cluster), await status(cluster, STATEFULSETS)

    found, counts = vtime.run(story())
    assert found == ["web-0", "web-1"]
    assert (counts["replicas"], counts["readyReplicas"]) == (2, 1)


def test_a_partition_keeps_lower_ordinals_at_the_current_revision_even_when_they_are_made_again():
    async def story():
        async with Cluster() as cluster:
            rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
            await cluster.create(STATEFULSETS, stateful(3, updateStrategy=rolling))
            await rolled_out(cluster, STATEFULSETS, 3)
            await cluster.patch(STATEFULSETS, "web", image("app:2"), "json")
            await asyncio.sleep(10)
            await cluster.api.delete(PODS, "web-0", NAMESPACE)
            await asyncio.sleep(20)
            found = await cluster.listed(PODS)
            return {one["metadata"]["name"]: one["spec"]["containers"][0]["image"] for one in found}

    assert vtime.run(story()) == {"web-0": "app:1", "web-1": "app:1", "web-2": "app:2"}


def test_min_ready_seconds_slow_an_update_down():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(STATEFULSETS, stateful(2, minReadySeconds=10))
            await asyncio.sleep(0.01)
            return await rolled_out(cluster, STATEFULSETS, 2)

    assert 10 < vtime.run(story()) < 12


def test_claims_are_made_for_each_ordinal_and_outlive_their_pods():
    async def story():
        async with Cluster() as cluster:
            claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
            claim["spec"]["resources"] = {"requests": {"storage": "1Gi"}}
            await cluster.create(STATEFULSETS, stateful(2, volumeClaimTemplates=[claim]))
            await rolled_out(cluster, STATEFULSETS, 2)
            pod = await cluster.get(PODS, "web-1")
            assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("web-1", "web")
            held = [one for one in pod["spec"]["volumes"] if "persistentVolumeClaim" in one]
            assert [one["persistentVolumeClaim"]["claimName"] for one in held] == ["data-web-1"]
            await cluster.patch(STATEFULSETS, "web", {"spec": {"replicas": 0}})
            await asyncio.sleep(10)
            assert await cluster.listed(PODS) == []
            return [one["metadata"]["name"] for one in await cluster.listed(CLAIMS)]

    assert vtime.run(story()) == ["data-web-0", "data-web-1"]
