"""Our own kinds on a real API server."""

from __future__ import annotations

import asyncio
import contextlib

from tidegate.kube.api import CUSTOMRESOURCEDEFINITIONS, DRAINS, NAMESPACES, OBSERVERS, RELEASES, JsonObject
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError
from tidegate.operator.crds import manifests

NS = "crds"


@contextlib.asynccontextmanager
async def defined(plane):
    """An API client of a server that serves our kinds."""
    async with open_api(kubeconfig=str(plane.kubeconfig)) as api:
        for one in manifests():
            with contextlib.suppress(ApiError):
                await api.create(CUSTOMRESOURCEDEFINITIONS, one)
        async with asyncio.timeout(30):
            for one in manifests():
                while not _is_served(await api.get(CUSTOMRESOURCEDEFINITIONS, one["metadata"]["name"])):
                    await asyncio.sleep(0.1)
            while True:
                with contextlib.suppress(ApiError):
                    for kind in (RELEASES, DRAINS, OBSERVERS):
                        await api.list(kind)
                    break
                await asyncio.sleep(0.1)
        with contextlib.suppress(ApiError):
            await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
        yield api


def _is_served(crd: JsonObject) -> bool:
    conditions = {one["type"]: one for one in (crd.get("status") or {}).get("conditions") or ()}
    assert "NonStructuralSchema" not in conditions, conditions["NonStructuralSchema"]["message"]
    return conditions.get("Established", {}).get("status") == "True"
