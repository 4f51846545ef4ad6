"""PodDisruptionBudgets: the arithmetic, and that an eviction is counted once."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.kube.api import DEPLOYMENTS, PODDISRUPTIONBUDGETS, PODS
from tidegate.kube.errors import ApiError

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
