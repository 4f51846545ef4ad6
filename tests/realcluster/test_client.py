"""The API client against a real API server: what the lab is later held to as well."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.kube.api import CONFIGMAPS, DEPLOYMENTS, PODS, Deletion, Patch, Selection
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError

pytestmark = pytest.mark.realcluster


def _configmap(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


async def test_create_patch_list_watch_delete(real_cluster):
    async with open_api(kubeconfig=str(real_cluster.kubeconfig)) as api:
        made = await api.create(CONFIGMAPS, _configmap("a", x="1"))
        version = made["metadata"]["resourceVersion"]
        seen = []

        async def follow():
            select = Selection("default", fields="metadata.name=a")
            async for event in api.watch(CONFIGMAPS, select, version):
                seen.append(event.type)
                if event.type == "DELETED":
                    return

        watching = asyncio.get_running_loop().create_task(follow())
        await api.patch(CONFIGMAPS, "a", Patch({"data": {"x": "2"}}), "default")
        with pytest.raises(ApiError) as stale:
            await api.delete(CONFIGMAPS, "a", "default", Deletion(resource_version=version))
        assert stale.value.is_conflict
        await api.delete(CONFIGMAPS, "a", "default", Deletion(uid=made["metadata"]["uid"]))
        async with asyncio.timeout(10):
            await watching
        assert [kind for kind in seen if kind != "BOOKMARK"] == ["MODIFIED", "DELETED"]


async def test_a_failed_json_patch_test_changes_nothing(real_cluster):
    async with open_api(kubeconfig=str(real_cluster.kubeconfig)) as api:
        await api.create(CONFIGMAPS, _configmap("b", x="1"))
        ops = [
            {"op": "test", "path": "/data/x", "value": "other"},
            {"op": "replace", "path": "/data/x", "value": "3"},
        ]
        with pytest.raises(ApiError) as failed:
            await api.patch(CONFIGMAPS, "b", Patch(ops, "json"), "default")
        assert failed.value.code == 422
        assert (await api.get(CONFIGMAPS, "b", "default"))["data"] == {"x": "1"}


async def test_a_dry_run_deletes_nothing(real_cluster):
    async with open_api(kubeconfig=str(real_cluster.kubeconfig)) as api:
        await api.create(CONFIGMAPS, _configmap("kept", x="1"))
        await api.delete(CONFIGMAPS, "kept", "default", Deletion(dry_run=True))
        assert (await api.get(CONFIGMAPS, "kept", "default"))["data"] == {"x": "1"}


async def test_a_list_comes_in_pages_and_is_whole(real_cluster):
    async with open_api(kubeconfig=str(real_cluster.kubeconfig)) as api:
        for number in range(30):
            await api.create(CONFIGMAPS, _configmap(f"page-{number:02}"))
        listing = await api.list(CONFIGMAPS, Selection("default"))
        names = [item["metadata"]["name"] for item in listing.items if item["metadata"]["name"].startswith("page-")]
        assert names == [f"page-{number:02}" for number in range(30)]


async def test_a_missing_object_is_a_404_with_kubernetes_words(real_cluster):
    async with open_api(kubeconfig=str(real_cluster.kubeconfig)) as api:
        with pytest.raises(ApiError, match='pods "nosuch" not found'):
            await api.get(PODS, "nosuch", "default")
        with pytest.raises(ApiError, match=r'deployments\.apps "nosuch" not found'):
            await api.get(DEPLOYMENTS, "nosuch", "default")
