"""Custom kinds among the controllers: owners take them along, namespaces empty of them, definitions come and go."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.kube.api import CONFIGMAPS, NAMESPACES, Deletion, Resource
from tidegate.kube.errors import ApiError
from tidegate.lab.controllers.customs import DEFINITIONS

from .controller_world import NAMESPACE, Cluster
from .test_garbage import config, names

GIZMOS = Resource("gizmo.example.org", "v1", "gizmos", "Gizmo")
BETAS = Resource("gizmo.example.org", "v1beta1", "gizmos", "Gizmo")


def definition(*served):
    versions = [
        {
            "name": name,
            "served": name in served,
            "storage": name == "v1",
            "schema": {"openAPIV3Schema": {"type": "object"}},
        }
        for name in ("v1", "v1beta1")
    ]
    spec = {
        "group": GIZMOS.group,
        "scope": "Namespaced",
        "names": {"plural": "gizmos", "kind": "Gizmo"},
        "versions": versions,
    }
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**kind, "metadata": {"name": "gizmos.gizmo.example.org"}, "spec": spec}


def gizmo(name="g", *owners, finalizers=()):
    made = config(name, *owners, finalizers=finalizers)
    return {**made, "apiVersion": GIZMOS.api_version, "kind": "Gizmo"}


async def is_gone(cluster, resource, name, namespace=NAMESPACE):
    try:
        await cluster.api.get(resource, name, namespace)
    except ApiError as error:
        return error.is_not_found
    return False


def test_what_a_custom_object_owns_goes_with_it_and_it_with_its_owner():
    async def story():
        async with Cluster() as cluster:
            await cluster.api.create(DEFINITIONS, definition("v1", "v1beta1"))
            top = await cluster.create(CONFIGMAPS, config("top"))
            made = await cluster.create(GIZMOS, gizmo("g", top))
            await cluster.create(CONFIGMAPS, config("below", {**made, "apiVersion": BETAS.api_version}))
            await asyncio.sleep(2)
            assert await names(cluster, GIZMOS) == ["g"]
            await cluster.api.delete(CONFIGMAPS, "top", NAMESPACE)
            await asyncio.sleep(2)
            assert await names(cluster, GIZMOS) == await names(cluster, CONFIGMAPS) == []

    vtime.run(story())


def test_in_the_foreground_a_custom_owner_goes_last():
    async def story():
        async with Cluster() as cluster:
            await cluster.api.create(DEFINITIONS, definition("v1"))
            made = await cluster.create(GIZMOS, gizmo())
            await cluster.create(CONFIGMAPS, config("held", made, finalizers=["example.org/held"]))
            await cluster.api.delete(GIZMOS, "g", NAMESPACE, Deletion(propagation="Foreground"))
            await asyncio.sleep(2)
            assert await names(cluster, GIZMOS) == ["g"]
            live = await cluster.api.get(CONFIGMAPS, "held", NAMESPACE)
            await cluster.api.replace(CONFIGMAPS, {**live, "metadata": {**live["metadata"], "finalizers": []}})
            await asyncio.sleep(40)
            assert await names(cluster, GIZMOS) == []

    vtime.run(story())


def test_a_namespace_waits_for_its_custom_objects():
    async def story():
        async with Cluster() as cluster:
            await cluster.api.create(DEFINITIONS, definition("v1"))
            await cluster.create(GIZMOS, gizmo("free"))
            await cluster.create(GIZMOS, gizmo("held", finalizers=["example.org/held"]))
            await cluster.api.delete(NAMESPACES, NAMESPACE)
            await asyncio.sleep(10)
            assert await names(cluster, GIZMOS) == ["held"]
            live = await cluster.api.get(GIZMOS, "held", NAMESPACE)
            await cluster.api.replace(GIZMOS, {**live, "metadata": {**live["metadata"], "finalizers": []}})
            await asyncio.sleep(10)
            assert await is_gone(cluster, NAMESPACES, NAMESPACE, "")

    vtime.run(story())


@pytest.mark.parametrize("lag_seconds", [0.0, 3.0])
def test_a_deleted_definition_takes_along_what_its_objects_own(lag_seconds):
    async def story():
        async with Cluster() as cluster:
            await cluster.api.create(DEFINITIONS, definition("v1"))
            made = await cluster.create(GIZMOS, gizmo())
            await cluster.create(CONFIGMAPS, config("below", made))
            await asyncio.sleep(lag_seconds)
            await cluster.api.delete(DEFINITIONS, "gizmos.gizmo.example.org")
            await asyncio.sleep(5)
            assert await names(cluster, CONFIGMAPS) == []
            await cluster.api.create(DEFINITIONS, definition("v1"))
            await asyncio.sleep(1)
            made = await cluster.create(GIZMOS, gizmo())
            await cluster.create(CONFIGMAPS, config("again", made))
            await cluster.api.delete(GIZMOS, "g", NAMESPACE)
            await asyncio.sleep(5)
            assert await names(cluster, CONFIGMAPS) == []

    vtime.run(story())


def test_what_is_merely_no_longer_served_keeps_what_it_owns():
    async def story():
        async with Cluster() as cluster:
            await cluster.api.create(DEFINITIONS, definition("v1"))
            made = await cluster.create(GIZMOS, gizmo())
            await cluster.create(CONFIGMAPS, config("below", made))
            await asyncio.sleep(2)
            live = await cluster.api.get(DEFINITIONS, "gizmos.gizmo.example.org")
            await cluster.api.replace(DEFINITIONS, {**live, "spec": definition()["spec"]})
            await cluster.create(CONFIGMAPS, config("later", made))
            await asyncio.sleep(5)
            assert await is_gone(cluster, GIZMOS, "g")
            assert await names(cluster, CONFIGMAPS) == ["below", "later"]

    vtime.run(story())
