"""EndpointSlices: who is in them, with which conditions, and how little is written."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tidegate import vtime
from tidegate.kube.api import DEPLOYMENTS, ENDPOINTS, ENDPOINTSLICES, PODS, SERVICES, Patch
from tidegate.lab.controllers.slices import ENDPOINTS_MAX, View, plan
from tidegate.lab.controllers.writes import Create, Remove, Replace

from .controller_world import NAMESPACE, Cluster, Recording, deployment, service

_uids = itertools.count(1)


def svc(**spec):
    meta = {"name": "web", "namespace": NAMESPACE, "uid": "svc", "labels": {"team": "sea"}}
    wanted = {"selector": {"app": "web"}, "clusterIP": "10.0.0.1", "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": wanted | spec}


def pod(index, ready=True, terminating=False, phase="Running", **spec):
    meta = {"name": f"pod-{index:03}", "namespace": NAMESPACE, "uid": f"uid-{index}", "labels": {"app": "web"}}
    if terminating:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    held = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    ip = f"10.1.{index // 250}.{index % 250 + 1}"
    status = {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "conditions": held}
    return {"metadata": meta, "spec": {"nodeName": "node-1", "containers": [], **spec}, "status": status}


NODES = {"node-1": {"metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "west"}}}}


def planned(service, pods, slices=()):
    writes, lost = plan(View(service, tuple(pods), tuple(slices), NODES, None))
    assert not lost
    return writes


def applied(slices, writes):
    """The slices after these writes, as the server would keep them."""
    kept = {one["metadata"]["name"]: one for one in slices}
    for write in writes:
        match write:
            case Create(_, obj):
                name = f"web-{next(_uids)}"
                kept[name] = {**obj, "metadata": {**obj["metadata"], "name": name}}
            case Replace(_, obj):
                kept[obj["metadata"]["name"]] = obj
            case Remove(_, (_, name)):
                del kept[name]
    return list(kept.values())


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("terminating", [False, True])
@pytest.mark.parametrize("ready", [False, True])
def test_conditions_follow_from_readiness_and_deletion(ready, terminating, published):
    (write,) = planned(svc(publishNotReadyAddresses=published), [pod(1, ready, terminating)])
    (endpoint,) = write.obj["endpoints"]
    assert endpoint["conditions"] == {
        "ready": published or (ready and not terminating),
        "serving": ready,
        "terminating": terminating,
    }
    assert endpoint["targetRef"] == {"kind": "Pod", "namespace": NAMESPACE, "name": "pod-001", "uid": "uid-1"}
    assert (endpoint["nodeName"], endpoint["zone"]) == ("node-1", "west")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_is_over_or_has_no_address_is_not_listed(phase):
    over, nowhere = pod(1, phase=phase), pod(2)
    nowhere["status"] = {"phase": "Pending"}
    (write,) = planned(svc(), [over, nowhere])
    assert (write.obj["endpoints"], write.obj["ports"]) == ([], [])


def test_a_service_without_endpoints_keeps_one_empty_slice_and_writes_it_once():
    slices = applied([], planned(svc(), []))
    assert [one["endpoints"] for one in slices] == [[]]
    assert planned(svc(), [], slices) == []


def test_a_slice_carries_the_services_labels_and_whose_it_is():
    (write,) = planned(svc(), [pod(1)])
    assert write.obj["metadata"]["labels"] == {
        "team": "sea",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    (headless,) = planned(svc(clusterIP="None", ipFamilies=["IPv4"]), [pod(1)])
    assert headless.obj["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


def test_pods_that_give_one_port_name_different_numbers_are_in_different_slices():
    def named(index, number):
        container = {"name": "c", "ports": [{"name": "http", "containerPort": number}]}
        return pod(index, containers=[container])

    ports = [{"name": "web", "port": 80, "targetPort": "http"}]
    writes = planned(svc(ports=ports), [named(1, 8080), named(2, 9090), named(3, 8080)])
    found = {write.obj["ports"][0]["port"]: len(write.obj["endpoints"]) for write in writes}
    assert found == {8080: 2, 9090: 1}


def test_no_slice_has_more_than_a_hundred_endpoints_and_one_change_is_one_write():
    pods = [pod(index) for index in range(250)]
    slices = applied([], planned(svc(), pods))
    assert sorted(len(one["endpoints"]) for one in slices) == [50, 100, 100]
    assert planned(svc(), pods, slices) == []
    pods[120] = pod(120, terminating=True)
    (write,) = planned(svc(), pods, slices)
    assert isinstance(write, Replace)
    slices = applied(slices, [write])
    del pods[7]
    (write,) = planned(svc(), pods, slices)
    assert len(write.obj["endpoints"]) == 99
    slices = applied(slices, [write])
    (write,) = planned(svc(), [*pods, pod(999)], slices)
    assert len(write.obj["endpoints"]) == ENDPOINTS_MAX, "the fullest slice with room is filled first"


def test_when_the_last_endpoint_goes_its_slice_is_emptied_and_not_replaced():
    slices = applied([], planned(svc(), [pod(1)]))
    (write,) = planned(svc(), [], slices)
    assert isinstance(write, Replace)
    assert (write.obj["endpoints"], write.obj["ports"]) == ([], [])
    assert write.obj["metadata"]["name"] == slices[0]["metadata"]["name"]


def test_slices_of_a_dead_namesake_are_left_to_the_garbage_collector_and_not_reused():
    old = applied([], planned(svc(), [pod(1)]))
    young = svc()
    young["metadata"] = {**young["metadata"], "uid": "reborn"}
    writes = planned(young, [pod(1)], old)
    assert [type(write) for write in writes] == [Create, Remove]


def test_a_pod_on_an_unknown_node_is_left_out_and_tried_again():
    stray = pod(1)
    stray["spec"]["nodeName"] = "node-9"
    writes, lost = plan(View(svc(), (stray, pod(2)), (), NODES, None))
    assert lost == ["pod-001"]
    assert [one["targetRef"]["name"] for one in writes[0].obj["endpoints"]] == ["pod-002"]


async def begun(cluster, replicas=3, **spec):
    await cluster.create(SERVICES, service(**spec))
    await cluster.create(DEPLOYMENTS, deployment(replicas))
    await cluster.rolled_out()
    await asyncio.sleep(1)


def test_a_relabelled_pod_leaves_in_one_write_and_without_waiting():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster)
            recording = Recording(cluster, ENDPOINTSLICES)
            await asyncio.sleep(1)
            first, *others = (one["metadata"]["name"] for one in await cluster.pods())
            await cluster.patch(PODS, first, {"metadata": {"labels": {"app": "cut"}}})
            await asyncio.sleep(0.001)
            cut = recording.in_order[1].object
            assert sorted(one["targetRef"]["name"] for one in cut["endpoints"]) == sorted(others)
            assert all(one["conditions"]["ready"] for one in cut["endpoints"])
            assert "annotations" not in cut["metadata"], "a cut has no trigger time: it is not in the SLI"

    vtime.run(story())


def test_a_selector_that_moves_to_other_pods_moves_the_endpoints():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster)
            await cluster.patch(SERVICES, "web", {"spec": {"selector": {"app": "none"}}})
            await asyncio.sleep(0.01)
            assert await cluster.endpoints() == []
            await cluster.patch(SERVICES, "web", {"spec": {"selector": {"app": "web"}}})
            await asyncio.sleep(0.01)
            assert len(await cluster.endpoints()) == 3

    vtime.run(story())


def test_slices_of_a_service_without_a_selector_are_nobodys_business():
    async def story():
        async with Cluster() as cluster:
            obj = service("manual")
            del obj["spec"]["selector"]
            await cluster.create(SERVICES, obj)
            own = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "manual-1", "labels": {"kubernetes.io/service-name": "manual"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.9.9.9"]}],
                "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
            }
            made = await cluster.create(ENDPOINTSLICES, own)
            await asyncio.sleep(60)
            assert await cluster.listed(ENDPOINTSLICES) == [made]

    vtime.run(story())


def test_a_slice_someone_deletes_or_edits_is_put_right():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster)
            (before,) = await cluster.listed(ENDPOINTSLICES)
            name = before["metadata"]["name"]
            await cluster.api.patch(ENDPOINTSLICES, name, Patch({"endpoints": []}), NAMESPACE)
            await asyncio.sleep(1)
            assert len(await cluster.endpoints()) == 3
            await cluster.api.delete(ENDPOINTSLICES, name, NAMESPACE)
            await asyncio.sleep(1)
            assert len(await cluster.endpoints()) == 3

    vtime.run(story())


def test_legacy_endpoints_list_ready_and_unready_but_never_terminating_pods():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, 2)
            first = (await cluster.pods())[0]
            await cluster.api.delete(PODS, first["metadata"]["name"], NAMESPACE)
            await asyncio.sleep(0.01)
            assert {one["conditions"]["terminating"] for one in await cluster.endpoints()} == {True, False}
            (subset,) = (await cluster.get(ENDPOINTS, "web"))["subsets"]
            names = [entry["targetRef"]["name"] for entry in subset["addresses"]]
            assert first["metadata"]["name"] not in names
            assert len(subset["notReadyAddresses"]) == 1
            assert subset["ports"][0]["port"] == 8080
            await cluster.api.delete(SERVICES, "web", NAMESPACE)
            await asyncio.sleep(1)
            assert await cluster.listed(ENDPOINTS) == []
            assert await cluster.listed(ENDPOINTSLICES) == []

    vtime.run(story())
