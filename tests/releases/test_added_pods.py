"""What a release tells the coordinator of the pods that everybody is to send to: where, by the Service's own slices."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.client.release import asking
from tidegate.client.release.asking import addition_of, subject_of
from tidegate.kube.api import ENDPOINTSLICES, Listing
from tidegate.model import endpointslice, pod
from tidegate.model.endpoint import Endpoint
from tidegate.observers.coordinator import NodeView, View
from tidegate.release.scene import Question

QUESTION = Question("routed", "r2", "web", 1)


def made(name, ip, ready=True):
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    metadata = {"name": name, "namespace": "demo", "uid": name}
    status = {"podIP": ip, "podIPs": [{"ip": ip}], "conditions": [condition], "phase": "Running"}
    return pod.decode({"metadata": metadata, "spec": {"containers": [{"name": "c"}]}, "status": status})


def sliced(*pods, **options):
    return endpointslice.decode(slice_of(*pods, **options))


def slice_of(*pods, port=8080, zone="z-1"):
    endpoints = [
        {
            "addresses": [one.ips[0]],
            "conditions": {"ready": True},
            "zone": zone,
            "targetRef": {"kind": "Pod", "name": one.name, "uid": one.uid},
        }
        for one in pods
    ]
    labels = {"kubernetes.io/service-name": "web"}
    metadata = {"name": f"web-{port}", "namespace": "demo", "labels": labels}
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": port}]}


NEW, BESIDE, BEFORE = made("new", "10.0.0.1"), made("beside", "10.0.0.2"), made("before", "10.0.0.3")


def test_each_pod_is_where_the_slices_say_in_all_of_them():
    addition = addition_of(subject_of("demo", QUESTION, [NEW]), [sliced(NEW), sliced(NEW, port=9090)])
    [joining] = addition.pods
    assert (addition.service, joining.pod, joining.zone) == ("demo/web", "pod/new", "z-1")
    assert joining.endpoints == (Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.1", 9090)) and addition.others == ()


def test_whom_the_service_lists_beside_them_and_whom_it_had_before_tell_who_routes_by_it():
    subject = subject_of("demo", QUESTION, [NEW], [BEFORE])
    assert addition_of(subject, [sliced(NEW, BESIDE)]).others == (
        Endpoint("10.0.0.2", 8080),
        Endpoint("10.0.0.3", 8080),
    ), "at the Service's own ports: who has them at another port routes by another Service"


def test_one_that_is_not_ready_is_not_asked_about():
    assert subject_of("demo", QUESTION, [made("late", "10.0.0.4", ready=False), NEW]).pods == (NEW,)


class Lists:
    """The API, as far as a question looks at it."""

    async def list(self, resource, *args):
        return Listing([slice_of(NEW)] if resource is ENDPOINTSLICES else [], "1")


async def installed(client):
    return True


def test_before_its_coordinator_has_listed_the_nodes_no_other_word_is_a_yes(monkeypatch):
    balancer = NodeView("lb", "confirmed", "sends to all 1 pods for 5 s, by its own word")
    view = View(instance="c", now=1.0, spell="1", clean_at=0.5, epoch="main/5", nodes=(balancer,), is_fresh=True)

    class Told:
        def __init__(self, client):
            pass

        async def acknowledge(self, ask):
            await asyncio.sleep(0.1)
            return view

    monkeypatch.setattr(asking, "ProxiedCoordinator", Told)
    monkeypatch.setattr(asking, "is_installed", installed)

    async def story():
        heard = []
        task = asyncio.create_task(asking.answer(Lists(), subject_of("demo", QUESTION, [NEW]), "n", heard.append))
        await asyncio.sleep(5)
        is_over = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return is_over, heard[-1].stragglers if heard else ()

    assert vtime.run(story(), limit_seconds=60) == (False, ("the nodes have not been listed yet",))
