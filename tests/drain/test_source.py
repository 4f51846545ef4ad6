"""The source question: do the EndpointSlices still send new traffic to a pod that was cut?"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from kubernetes_stage import pod, service, slice_of, workload

from tidegate.drain import Mode, Question, gate_exception, look, suspects

LEAVING = {"ready": False, "serving": True, "terminating": True}
READY = {"ready": True, "serving": True, "terminating": False}
ONE_AT_A_TIME = "makes the next pod only when this one is gone"
NOT_YET = {"ready": False, "serving": False, "terminating": False}


def gate(*entries, services=None, the_pod=None, seen=("demo/echo",), **more) -> Question:
    slices = (slice_of(*entries, **more),) if entries else ()
    return Question(Mode.GATE, the_pod or pod(deleted=True), services or (service(),), slices, seen)


def label(*entries, the_pod=None, seen=("demo/echo",)) -> Question:
    cut = the_pod or pod(labels={"app": "tidegate-cut"})
    slices = (slice_of(*entries),) if entries else ()
    return Question(Mode.LABEL, cut, (service(),), slices, seen, labels_before={"app": "echo"})


def test_a_terminating_pod_beside_a_ready_one_gets_no_new_traffic():
    assert look(gate(("echo-1", LEAVING), ("echo-2", READY))).dirty == ()


def test_a_pod_still_listed_as_ready_does():
    assert look(gate(("echo-1", READY), ("echo-2", READY))).dirty == (
        "EndpointSlice demo/echo-x7k of demo/echo lists echo-1 (ready, serving)",
    )


def test_without_another_ready_endpoint_kubernetes_falls_back_to_the_terminating_one():
    last = ("last endpoint: no other endpoint of demo/echo is ready",)
    assert look(gate(("echo-1", LEAVING))).dirty == last
    assert look(gate(("echo-1", LEAVING), ("echo-2", LEAVING))).dirty == last
    assert look(gate(("echo-1", LEAVING), ("echo-2", NOT_YET))).dirty == last


def test_an_endpoint_that_does_not_serve_is_not_fallen_back_to():
    assert look(gate(("echo-1", LEAVING | {"serving": False}))).is_clean


def test_a_ready_endpoint_of_another_port_or_family_takes_nothing_over():
    question = gate(("echo-1", LEAVING))
    other_port = slice_of(("echo-2", READY), name="echo-2nd", port_name="metrics")
    other_family = slice_of(("echo-2", READY), name="echo-v6", family="IPv6")
    for other in (other_port, other_family):
        assert not look(replace(question, slices=(*question.slices, other))).is_clean
    same = slice_of(("echo-2", READY), name="echo-2nd")
    assert look(replace(question, slices=(*question.slices, same))).is_clean


def test_a_local_policy_needs_another_ready_endpoint_on_the_same_node():
    local = service(externalTrafficPolicy="Local")
    far = gate(("echo-1", LEAVING), ("echo-2", READY, "node-2"), services=(local,))
    assert look(far).dirty == (
        "last endpoint: no other endpoint of demo/echo is ready on node-1 (traffic policy Local)",
    )
    assert look(gate(("echo-1", LEAVING), ("echo-2", READY, "node-1"), services=(local,))).is_clean
    unready = gate(
        ("echo-1", LEAVING),
        ("echo-2", READY, "node-2"),
        ("echo-3", NOT_YET, "node-1", "10.244.1.13"),
        services=(local,),
    )
    assert not look(unready).is_clean
    within = service(internalTrafficPolicy="Local")
    assert not look(gate(("echo-1", LEAVING), ("echo-2", READY, "node-2"), services=(within,))).is_clean


def test_a_slice_that_has_not_heard_of_the_deletion_is_waited_for_whether_the_pod_is_ready_or_not():
    assert not look(gate(("echo-1", NOT_YET), ("echo-2", READY))).is_clean
    headless = service("peers", clusterIP="None")
    listed = gate(
        ("echo-1", READY), ("echo-2", READY), services=(headless,), service_name="peers", seen=("demo/peers",)
    )
    assert not look(listed).is_clean


def test_a_slice_of_a_service_that_was_not_listed_is_waited_for():
    listed = gate(("echo-1", LEAVING), ("echo-2", READY), services=(service("other", selector={"app": "other"}),))
    assert look(listed).dirty == (
        "EndpointSlice demo/echo-x7k of demo/echo lists echo-1 (serving, terminating), and no such Service was listed",
    )


def test_publish_not_ready_addresses_keeps_a_terminating_pod_ready():
    listed = gate(("echo-1", LEAVING | {"ready": True}), ("echo-2", READY))
    assert look(listed).dirty == (
        "EndpointSlice demo/echo-x7k of demo/echo lists echo-1 (ready, serving, terminating)",
    )


def test_absence_that_was_never_presence_proves_nothing():
    assert look(gate(seen=())).dirty == ("not seen in the EndpointSlices of demo/echo yet",)
    assert look(gate()).is_clean
    assert look(label(seen=())).dirty == ("not seen in the EndpointSlices of demo/echo yet",)


def test_presence_is_remembered_for_the_next_look():
    first = look(gate(("echo-1", READY), ("echo-2", READY), seen=()))
    assert first.seen == ("demo/echo",)
    assert look(gate(seen=first.seen)).is_clean


def test_a_pod_without_address_was_never_routed():
    assert look(gate(seen=(), the_pod=pod(deleted=True, ip=""))).is_clean
    ended = msgspec.structs.replace(pod(deleted=True), phase="Succeeded")
    assert look(gate(seen=(), the_pod=ended)).is_clean


def test_a_cut_pod_is_clean_when_no_slice_has_it():
    assert look(label(("echo-2", READY))).is_clean
    assert not look(label(("echo-1", READY), ("echo-2", READY))).is_clean
    assert not look(label(("echo-1", LEAVING), ("echo-2", READY))).is_clean


def test_a_cut_pod_whose_label_came_back_is_not_clean():
    assert look(label(("echo-2", READY), the_pod=pod())).dirty == ("Service demo/echo selects it again",)


def test_a_slice_that_names_no_pod_is_found_by_address():
    question = label(("echo-2", READY))
    mirrored = slice_of((None, READY), name="manual", service_name="legacy")
    dirty = look(replace(question, slices=(*question.slices, mirrored))).dirty
    assert dirty == ("EndpointSlice demo/manual of demo/legacy lists 10.244.1.11 (ready, serving) by address",)


def test_an_address_that_now_belongs_to_another_pod_is_not_ours():
    reused = slice_of(("echo-9", READY, "node-1", "10.244.1.11"))
    assert look(replace(label(), slices=(reused,))).is_clean


def test_a_gate_without_deletion_is_answered_at_once():
    question = gate(("echo-1", READY), the_pod=pod())
    assert gate_exception(question, workload()) == (
        "no deletionTimestamp: a liveness restart or a node shutdown, the pod keeps its routes"
    )


def test_a_pod_with_publish_not_ready_addresses_is_answered_at_once():
    question = gate(("echo-1", LEAVING | {"ready": True}), services=(service(publishNotReadyAddresses=True),))
    assert gate_exception(question, workload()) == (
        "publishNotReadyAddresses of demo/echo keeps it ready until it is gone"
    )


def test_a_headless_service_is_suspected_not_waited_for():
    headless = service("peers", clusterIP="None", publishNotReadyAddresses=True)
    listed = gate(
        ("echo-1", LEAVING | {"ready": True}), services=(headless,), service_name="peers", seen=("demo/peers",)
    )
    assert look(listed).is_clean
    assert gate_exception(listed, workload()) is None
    assert suspects(listed.pod, (headless, service())) == (
        "clients of the headless Service demo/peers keep its address for as long as DNS told them to",
    )


@pytest.mark.parametrize(
    ("owner", "why"),
    [
        (
            {"strategy": "Recreate"},
            f"Deployment demo/echo with strategy Recreate {ONE_AT_A_TIME}",
        ),
        ({"replicas": 0}, "Deployment demo/echo is scaled to zero"),
        ({"kind": "StatefulSet"}, f"StatefulSet demo/echo {ONE_AT_A_TIME}"),
        ({"kind": "DaemonSet"}, f"DaemonSet demo/echo {ONE_AT_A_TIME}"),
    ],
)
def test_the_last_endpoint_is_answered_at_once_where_none_can_come_while_it_lives(owner, why):
    assert gate_exception(gate(("echo-1", LEAVING)), workload(**owner)) == f"last endpoint of demo/echo: {why}"


@pytest.mark.parametrize("owner", [{}, {"kind": "DaemonSet", "surge": 1}, {"kind": "ReplicaSet"}])
def test_the_last_endpoint_is_held_where_a_replacement_can_come(owner):
    assert gate_exception(gate(("echo-1", LEAVING)), workload(**owner)) is None


def test_a_recreated_pod_is_held_while_another_endpoint_may_still_become_ready():
    question = gate(("echo-1", LEAVING), ("echo-2", NOT_YET))
    assert gate_exception(question, workload(kind="StatefulSet")) is None


def test_the_last_bare_pod_is_not_held_for_a_replacement_nobody_makes():
    assert gate_exception(gate(("echo-1", LEAVING)), None) == (
        "last endpoint of demo/echo: nobody makes a replacement of a bare pod"
    )
    owned = gate(("echo-1", LEAVING), the_pod=pod(deleted=True, owner=True))
    assert gate_exception(owned, None) is None
    assert gate_exception(gate(("echo-2", LEAVING)), None) is None, "it is in no slice: nobody's last endpoint"


def test_an_owner_that_is_gone_makes_no_replacement():
    gone = msgspec.structs.replace(workload(), is_ending=True)
    assert (
        gate_exception(gate(("echo-1", LEAVING)), gone) == "last endpoint of demo/echo: Deployment demo/echo is deleted"
    )


HELD = {"tidegate.dev/held": "cut"}
CUT_AND_LISTED = slice_of(("echo-1", READY), name="draining-1", service_name="tidegate-draining")


def draining(**spec):
    return service("tidegate-draining", **{"selector": HELD, "clusterIP": "None", "ports": [], **spec})


def held(the_service) -> Question:
    cut = pod(labels={"app": "tidegate-cut", **HELD})
    return Question(
        Mode.LABEL, cut, (service(), the_service), (CUT_AND_LISTED,), ("demo/echo",), labels_before={"app": "echo"}
    )


def test_the_service_that_keeps_cut_pods_scrapeable_is_no_route():
    assert look(held(draining())).is_clean
    ending = gate(("echo-2", READY), the_pod=pod(labels=HELD, deleted=True), services=(draining(),), seen=())
    assert look(replace(ending, slices=(CUT_AND_LISTED,))).is_clean
    assert suspects(pod(labels=HELD), (draining(),)) == ()


@pytest.mark.parametrize("spec", [
    {"clusterIP": "10.96.1.2"},
    {"selector": {"app": "tidegate-cut"}},
    {"selector": {**HELD, "app": "tidegate-cut"}},
    {"ports": [{"port": 80}]},
    {"type": "ExternalName", "clusterIP": ""},
])  # fmt: skip
def test_an_imposter_that_merely_has_its_name_is_a_route_like_any(spec):
    assert not look(held(draining(**spec))).is_clean


def test_a_slice_that_merely_has_its_name_is_a_route_like_any():
    stray = msgspec.structs.replace(CUT_AND_LISTED, name="tidegate-draining", service="")
    assert not look(replace(held(draining()), slices=(stray,))).is_clean
    elsewhere = msgspec.structs.replace(CUT_AND_LISTED, namespace="other")
    assert not look(replace(held(draining()), slices=(elsewhere,))).is_clean
