"""Garbage collection: who goes with whom, in which order, and who stays."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.kube.api import CONFIGMAPS, DEPLOYMENTS, PODS, REPLICASETS, Deletion
from tidegate.kube.errors import ApiError

from .controller_world import NAMESPACE, Cluster, Habits, Recording, deployment


def config(name, *owners, finalizers=()):
    refs = [
        {"apiVersion": one["apiVersion"], "kind": one["kind"], "name": one["metadata"]["name"]}
        | {"uid": one["metadata"]["uid"], "blockOwnerDeletion": True}
        for one in owners
    ]
    meta = {"name": name, "ownerReferences": refs, "finalizers": list(finalizers)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {key: value for key, value in meta.items() if value}}


async def names(cluster, resource):
    return [
        one["metadata"]["name"]
        for one in await cluster.listed(resource)
        if one["metadata"]["name"] != "kube-root-ca.crt"
    ]


async def delete(cluster, resource, name, propagation):
    await cluster.api.delete(resource, name, NAMESPACE, Deletion(propagation=propagation))


def test_a_deployment_deleted_in_the_background_takes_its_replicaset_and_pods_along():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(DEPLOYMENTS, deployment())
            await cluster.rolled_out()
            await delete(cluster, DEPLOYMENTS, "web", "Background")
            assert await names(cluster, DEPLOYMENTS) == []
            await asyncio.sleep(5)
            assert await names(cluster, REPLICASETS) == await names(cluster, PODS) == []

    vtime.run(story())


def test_in_the_foreground_the_owner_goes_last():
    async def story():
        async with Cluster(habits=Habits(stop_seconds=3)) as cluster:
            await cluster.create(DEPLOYMENTS, deployment(2))
            await cluster.rolled_out()
            recording = Recording(cluster, DEPLOYMENTS, REPLICASETS, PODS)
            await delete(cluster, DEPLOYMENTS, "web", "Foreground")
            await asyncio.sleep(1)
            assert await names(cluster, DEPLOYMENTS) == ["web"]
            await asyncio.sleep(10)
            gone = [event.object["kind"] for event in recording.in_order if event.type == "DELETED"]
            assert gone == ["Pod", "Pod", "ReplicaSet", "Deployment"]
            assert not [event for event in recording.events if event.object["kind"] == "Pod" and event.type == "ADDED"][
                2:
            ]

    vtime.run(story())


def test_orphaned_dependents_stay_without_the_reference():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(DEPLOYMENTS, deployment(2))
            await cluster.rolled_out()
            await delete(cluster, DEPLOYMENTS, "web", "Orphan")
            await asyncio.sleep(5)
            assert await names(cluster, DEPLOYMENTS) == []
            (left,) = await cluster.listed(REPLICASETS)
            assert not left["metadata"].get("ownerReferences")
            assert left["status"]["readyReplicas"] == 2

    vtime.run(story())


def test_an_object_stays_while_one_of_its_owners_lives_and_forgets_the_dead_one():
    async def story():
        async with Cluster() as cluster:
            one = await cluster.create(CONFIGMAPS, config("one"))
            two = await cluster.create(CONFIGMAPS, config("two"))
            await cluster.create(CONFIGMAPS, config("child", one, two))
            await delete(cluster, CONFIGMAPS, "one", "Background")
            await asyncio.sleep(1)
            child = await cluster.get(CONFIGMAPS, "child")
            assert [ref["name"] for ref in child["metadata"]["ownerReferences"]] == ["two"]
            await delete(cluster, CONFIGMAPS, "two", "Background")
            await asyncio.sleep(1)
            assert await names(cluster, CONFIGMAPS) == []

    vtime.run(story())


def test_an_object_born_with_a_dead_owner_is_collected_and_a_namesake_does_not_save_it():
    async def story():
        async with Cluster() as cluster:
            dead = await cluster.create(CONFIGMAPS, config("owner"))
            await delete(cluster, CONFIGMAPS, "owner", "Background")
            await cluster.create(CONFIGMAPS, config("owner"))
            await cluster.create(CONFIGMAPS, config("late", dead))
            await asyncio.sleep(1)
            assert await names(cluster, CONFIGMAPS) == ["owner"]

    vtime.run(story())


def test_a_finalizer_on_a_dependent_holds_a_foreground_deletion_up():
    async def story():
        async with Cluster() as cluster:
            owner = await cluster.create(CONFIGMAPS, config("owner"))
            await cluster.create(CONFIGMAPS, config("held", owner, finalizers=("example.org/hold",)))
            await delete(cluster, CONFIGMAPS, "owner", "Foreground")
            await asyncio.sleep(60)
            assert await names(cluster, CONFIGMAPS) == ["held", "owner"]
            await cluster.patch(CONFIGMAPS, "held", {"metadata": {"finalizers": None}})
            await asyncio.sleep(1)
            assert await names(cluster, CONFIGMAPS) == []

    vtime.run(story())


def test_a_pod_deleted_by_hand_is_gone_for_good_and_its_replicaset_makes_another():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(DEPLOYMENTS, deployment(1))
            await cluster.rolled_out()
            (before,) = await names(cluster, PODS)
            await cluster.api.delete(PODS, before, NAMESPACE, Deletion(grace_seconds=0))
            await asyncio.sleep(2)
            (after,) = await names(cluster, PODS)
            assert before != after
            try:
                await cluster.get(PODS, before)
            except ApiError as error:
                assert error.is_not_found

    vtime.run(story())
