"""Namespaces: what they are born with, and that they go after their content."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.kube.api import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTSLICES,
    EVENTS,
    NAMESPACES,
    PODS,
    SERVICEACCOUNTS,
    SERVICES,
    Selection,
)
from tidegate.kube.errors import ApiError
from tidegate.lab.config import LabConfig

from .controller_world import NAMESPACE, Cluster, Habits, deployment, service


def test_every_namespace_gets_an_account_and_the_root_certificates_and_gets_them_back():
    async def story():
        async with Cluster() as cluster:
            assert (await cluster.get(SERVICEACCOUNTS, "default"))["metadata"]["name"] == "default"
            assert "ca.crt" in (await cluster.get(CONFIGMAPS, "kube-root-ca.crt"))["data"]
            await cluster.api.delete(SERVICEACCOUNTS, "default", NAMESPACE)
            await cluster.api.delete(CONFIGMAPS, "kube-root-ca.crt", NAMESPACE)
            await asyncio.sleep(0.1)
            await cluster.get(SERVICEACCOUNTS, "default")
            await cluster.get(CONFIGMAPS, "kube-root-ca.crt")

    vtime.run(story())


def test_a_deleted_namespace_waits_for_its_pods_and_says_so():
    async def story():
        async with Cluster(habits=Habits(stop_seconds=8)) as cluster:
            await cluster.create(SERVICES, service())
            await cluster.create(DEPLOYMENTS, deployment(2))
            await cluster.rolled_out()
            await cluster.api.delete(NAMESPACES, NAMESPACE)
            await asyncio.sleep(2)
            held = await cluster.api.get(NAMESPACES, NAMESPACE)
            assert held["status"]["phase"] == "Terminating"
            said = {one["type"]: one for one in held["status"]["conditions"]}
            assert said["NamespaceContentRemaining"]["status"] == "True"
            assert "pods. has 2 resource instances" in said["NamespaceContentRemaining"]["message"]
            with pytest.raises(ApiError) as refusal:
                await cluster.create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})
            assert refusal.value.code == 403
            await asyncio.sleep(20)
            with pytest.raises(ApiError) as gone:
                await cluster.api.get(NAMESPACES, NAMESPACE)
            assert gone.value.is_not_found
            for resource in (PODS, SERVICES, ENDPOINTSLICES, DEPLOYMENTS, CONFIGMAPS, EVENTS):
                assert (await cluster.api.list(resource, Selection(NAMESPACE))).items == []

    vtime.run(story())


def test_a_finalizer_in_it_keeps_a_namespace_until_it_is_taken_off():
    async def story():
        async with Cluster() as cluster:
            meta = {"name": "held", "finalizers": ["example.org/hold"]}
            await cluster.create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
            await cluster.api.delete(NAMESPACES, NAMESPACE)
            await asyncio.sleep(30)
            held = await cluster.api.get(NAMESPACES, NAMESPACE)
            said = {one["type"]: one for one in held["status"]["conditions"]}
            assert said["NamespaceFinalizersRemaining"]["message"].endswith("example.org/hold in 1 resource instances")
            await cluster.patch(CONFIGMAPS, "held", {"metadata": {"finalizers": None}})
            await asyncio.sleep(1)
            with pytest.raises(ApiError):
                await cluster.api.get(NAMESPACES, NAMESPACE)

    vtime.run(story())


def test_the_kubernetes_service_points_at_the_api_server_and_is_put_back():
    async def story():
        addressing = LabConfig().addressing
        async with Cluster() as cluster:
            for _ in range(2):
                found = await cluster.api.get(SERVICES, "kubernetes", "default")
                assert found["spec"]["clusterIP"] == f"{addressing.service_prefix}.0.1"
                (endpoint,) = (await cluster.api.get(ENDPOINTSLICES, "kubernetes", "default"))["endpoints"]
                assert endpoint["addresses"] == [addressing.api_host]
                await cluster.api.delete(SERVICES, "kubernetes", "default")
                await cluster.api.delete(ENDPOINTSLICES, "kubernetes", "default")
                await asyncio.sleep(0.1)

    vtime.run(story())
