"""PodDisruptionBudgets: the arithmetic, and that an eviction is counted once."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.kube.api import CONFIGMAPS, DEPLOYMENTS, PODDISRUPTIONBUDGETS, PODS
from tidegate.kube.errors import ApiError
from tidegate.lab.controllers.kinds import STATEFULSETS

from .controller_world import NAMESPACE, Cluster, Habits, deployment


def budget(**spec):
    wanted = {"selector": {"matchLabels": {"app": "web"}}, **spec}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "floor"}, "spec": wanted}


async def evict(cluster, name):
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
    await cluster.api.create(PODS, body, NAMESPACE, "eviction")


async def counts(cluster):
    status = (await cluster.get(PODDISRUPTIONBUDGETS, "floor"))["status"]
    fields = ("expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed")
    return tuple(status[field] for field in fields)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"minAvailable": 2}, (3, 2, 3, 1)),
        ({"minAvailable": "50%"}, (3, 2, 3, 1)),
        ({"maxUnavailable": 1}, (3, 2, 3, 1)),
        ({"maxUnavailable": "34%"}, (3, 1, 3, 2)),
        ({"maxUnavailable": 0}, (3, 3, 3, 0)),
        ({"minAvailable": 9}, (3, 9, 3, 0)),
    ],
    ids=str,
)
def test_the_status_follows_from_the_spec_and_the_pods(spec, expected):
    async def story():
        async with Cluster() as cluster:
            await cluster.create(DEPLOYMENTS, deployment())
            await cluster.create(PODDISRUPTIONBUDGETS, budget(**spec))
            await cluster.rolled_out()
            await asyncio.sleep(0.1)
            assert await counts(cluster) == expected
            (condition,) = (await cluster.get(PODDISRUPTIONBUDGETS, "floor"))["status"]["conditions"]
            assert condition["reason"] == ("SufficientPods" if expected[-1] else "InsufficientPods")

    vtime.run(story())


def test_an_eviction_spends_the_budget_until_its_pod_is_replaced():
    async def story():
        async with Cluster(habits=Habits(start_seconds=2)) as cluster:
            await cluster.create(DEPLOYMENTS, deployment())
            await cluster.create(PODDISRUPTIONBUDGETS, budget(minAvailable=2))
            await cluster.rolled_out()
            await asyncio.sleep(0.1)
            first, second, _ = (one["metadata"]["name"] for one in await cluster.pods())
            await evict(cluster, first)
            with pytest.raises(ApiError) as refusal:
                await evict(cluster, second)
            assert refusal.value.code == 429
            await asyncio.sleep(1)
            with pytest.raises(ApiError):
                await evict(cluster, second)
            assert "disruptedPods" not in (await cluster.get(PODDISRUPTIONBUDGETS, "floor"))["status"]
            await asyncio.sleep(3)
            await evict(cluster, second)

    vtime.run(story())


def test_a_budget_without_pods_allows_nothing():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(PODDISRUPTIONBUDGETS, budget(minAvailable=0))
            await asyncio.sleep(0.1)
            assert await counts(cluster) == (0, 0, 0, 0)

    vtime.run(story())


def bare(name, **meta):
    container = {"name": "c", "image": "app:1"}
    metadata = {"name": name, "labels": {"app": "web"}, **meta}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


async def verdict(cluster):
    (condition,) = (await cluster.get(PODDISRUPTIONBUDGETS, "floor"))["status"]["conditions"]
    return condition["status"], condition["reason"], condition["message"]


def test_bare_pods_count_by_number_and_not_by_share():
    async def story(**spec):
        async with Cluster() as cluster:
            await cluster.create(PODDISRUPTIONBUDGETS, budget(**spec))
            for name in ("a", "b"):
                await cluster.create(PODS, bare(name))
            await asyncio.sleep(2)
            return await counts(cluster)

    assert vtime.run(story(minAvailable=1)) == (2, 1, 2, 1)
    assert vtime.run(story(minAvailable="50%")) == (0, 0, 2, 0)
    assert vtime.run(story(maxUnavailable=1)) == (0, 0, 2, 0)


def test_a_pod_that_loses_its_label_is_counted_until_another_pod_changes():
    """As in v1.36.2: the budget it has left is not told (updatePod looks at the new labels alone)."""

    async def story():
        async with Cluster() as cluster:
            await cluster.create(PODDISRUPTIONBUDGETS, budget(minAvailable=1))
            for name in ("a", "b", "c"):
                await cluster.create(PODS, bare(name))
            await asyncio.sleep(2)
            await cluster.patch(PODS, "a", {"metadata": {"labels": {"app": "cut"}}})
            await asyncio.sleep(60)
            stale = await counts(cluster)
            await cluster.patch(PODS, "b", {"metadata": {"annotations": {"note": "seen"}}})
            await asyncio.sleep(1)
            return stale, await counts(cluster)

    assert vtime.run(story()) == ((3, 1, 3, 2), (2, 1, 2, 1))


def test_a_pod_of_a_controller_without_a_scale_fails_the_sync_and_stops_evictions():
    async def story():
        async with Cluster() as cluster:
            keeper = await cluster.create(CONFIGMAPS, {"metadata": {"name": "keeper"}})
            owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "keeper", "uid": keeper["metadata"]["uid"]}
            await cluster.create(PODDISRUPTIONBUDGETS, budget(maxUnavailable=1))
            await cluster.create(PODS, bare("a", ownerReferences=[{**owner, "controller": True}]))
            await asyncio.sleep(2)
            return await verdict(cluster), await counts(cluster)

    (status, reason, message), (*_, allowed) = vtime.run(story())
    assert (status, reason, allowed) == ("False", "SyncFailed", 0)
    assert message == "configmaps does not implement the scale subresource"


def test_a_stateful_sets_pods_count_by_its_replicas():
    async def story():
        async with Cluster() as cluster:
            made = await cluster.create(
                STATEFULSETS,
                {
                    "metadata": {"name": "db"},
                    "spec": {**deployment(replicas=2)["spec"], "strategy": None, "serviceName": "db"},
                },
            )
            owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": made["metadata"]["uid"]}
            await cluster.create(PODDISRUPTIONBUDGETS, budget(maxUnavailable=1))
            for index in range(2):
                try:
                    await cluster.create(PODS, bare(f"db-{index}", ownerReferences=[{**owner, "controller": True}]))
                except ApiError as error:  # its controller was first
                    assert error.is_conflict
            await asyncio.sleep(5)
            return await counts(cluster)

    assert vtime.run(story()) == (2, 1, 2, 1)


def test_an_evicted_pod_says_so_and_a_dry_run_leaves_no_trace():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(DEPLOYMENTS, deployment())
            await cluster.create(PODDISRUPTIONBUDGETS, budget(minAvailable=1))
            await cluster.rolled_out()
            await asyncio.sleep(0.1)
            name = (await cluster.pods())[0]["metadata"]["name"]
            body = {"metadata": {"name": name, "namespace": NAMESPACE}, "deleteOptions": {"dryRun": ["All"]}}
            await cluster.api.create(PODS, body, NAMESPACE, "eviction")
            untouched = await cluster.get(PODS, name)
            spared = await counts(cluster)
            await evict(cluster, name)
            return untouched, spared, await cluster.get(PODS, name)

    untouched, spared, leaving = vtime.run(story())
    assert "deletionTimestamp" not in untouched["metadata"]
    assert spared == (3, 1, 3, 2)
    assert "DisruptionTarget" not in [one["type"] for one in untouched["status"]["conditions"]]
    (mark,) = [one for one in leaving["status"]["conditions"] if one["type"] == "DisruptionTarget"]
    assert (mark["status"], mark["reason"], mark["message"]) == (
        "True",
        "EvictionByEvictionAPI",
        "Eviction API: evicting",
    )
