"""Endpoints written by hand become slices, and only those."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.kube.api import ENDPOINTS, ENDPOINTSLICES, SERVICES

from .controller_world import NAMESPACE, Cluster, service

MANUAL = {
    "apiVersion": "v1",
    "kind": "Endpoints",
    "metadata": {"name": "manual"},
    "subsets": [
        {
            "addresses": [{"ip": "10.9.0.1"}, {"ip": "10.9.0.2"}],
            "notReadyAddresses": [{"ip": "10.9.0.3"}],
            "ports": [{"port": 9376}],
        }
    ],
}


def selectorless():
    obj = service("manual")
    del obj["spec"]["selector"]
    return obj


def test_hand_written_endpoints_are_mirrored_followed_and_cleaned_up():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(SERVICES, selectorless())
            await cluster.create(ENDPOINTS, MANUAL)
            await asyncio.sleep(0.1)
            (one,) = await cluster.listed(ENDPOINTSLICES)
            labels = one["metadata"]["labels"]
            assert labels["endpointslice.kubernetes.io/managed-by"] == "endpointslicemirroring-controller.k8s.io"
            assert [(end["addresses"], end["conditions"]["ready"]) for end in one["endpoints"]] == [
                (["10.9.0.1"], True),
                (["10.9.0.2"], True),
                (["10.9.0.3"], False),
            ]
            subsets = [{"addresses": [{"ip": "10.9.0.1"}], "ports": [{"port": 9376}]}]
            await cluster.patch(ENDPOINTS, "manual", {"subsets": subsets})
            await asyncio.sleep(0.1)
            (after,) = await cluster.listed(ENDPOINTSLICES)
            assert after["metadata"]["name"] == one["metadata"]["name"]
            assert len(after["endpoints"]) == 1
            await cluster.api.delete(ENDPOINTS, "manual", NAMESPACE)
            await asyncio.sleep(1)
            assert await cluster.listed(ENDPOINTSLICES) == []

    vtime.run(story())


def test_endpoints_that_ask_not_to_be_mirrored_are_not():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(SERVICES, selectorless())
            labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
            await cluster.create(ENDPOINTS, {**MANUAL, "metadata": {"name": "manual", "labels": labels}})
            await asyncio.sleep(1)
            assert await cluster.listed(ENDPOINTSLICES) == []
            slices = await cluster.api.list(ENDPOINTSLICES)
            assert [one["metadata"]["name"] for one in slices.items] == ["kubernetes"]

    vtime.run(story())
