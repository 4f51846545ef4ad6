"""Who gets new traffic of a Service, under Kubernetes' rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from kubernetes_stage import service, slice_of

from tidegate.traffic import routes

READY = {"ready": True, "serving": True, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
LEFT = {"ready": False, "serving": False, "terminating": True}
NOT_YET = {"ready": False, "serving": False, "terminating": False}
ALL = [READY, LEAVING, LEFT, NOT_YET]


def of(*entries, node="", external=False, **spec):
    return routes(service(**spec), [slice_of(*entries)], node, external)


def said(found):
    return [str(candidate) for candidate in found.candidates]


def test_ready_endpoints_are_routed_and_the_others_say_why_not():
    found = of(("echo-1", LEAVING), ("echo-2", READY), ("echo-9", NOT_YET))
    assert said(found) == [
        "10.244.1.11:8080 echo-1: not routed, terminating, and the Service has ready endpoints",
        "10.244.1.12:8080 echo-2: routed, ready",
        "10.244.1.19:8080 echo-9: not routed, not ready",
    ]


def test_when_none_is_ready_those_that_terminate_and_serve_are():
    found = of(("echo-1", LEAVING), ("echo-2", LEFT), ("echo-9", NOT_YET))
    assert said(found) == [
        "10.244.1.11:8080 echo-1: routed, terminating but serving, and the Service has no ready endpoint left",
        "10.244.1.12:8080 echo-2: not routed, terminating and no longer serving",
        "10.244.1.19:8080 echo-9: not routed, not ready",
    ]


def test_a_local_policy_looks_at_each_node_by_itself():
    entries = (("echo-1", LEAVING, "node-1"), ("echo-2", READY, "node-2"))
    found = of(*entries, external=True, externalTrafficPolicy="Local")
    assert [candidate.is_routed for candidate in found.candidates] == [True, True]
    assert [
        str(candidate.endpoint) for candidate in of(*entries, node="node-1", internalTrafficPolicy="Local").routed
    ] == ["10.244.1.11:8080"]
    inside = of(*entries, externalTrafficPolicy="Local")
    assert [candidate.is_routed for candidate in inside.candidates] == [False, True]


def test_a_node_without_local_endpoints_routes_nothing():
    assert of(("echo-1", READY, "node-1"), node="node-3", internalTrafficPolicy="Local").candidates == ()


def test_of_an_address_listed_twice_the_one_not_terminating_holds():
    old = slice_of(("echo-1", LEAVING))
    new = slice_of(("echo-9", READY, "node-1", "10.244.1.11"), name="echo-2nd")
    for slices in ([old, new], [new, old]):
        (candidate,) = routes(service(), slices).candidates
        assert (candidate.entry.pod, candidate.is_routed) == ("echo-9", True)


def test_slices_of_other_services_do_not_count():
    assert routes(service(), [slice_of(("echo-1", READY), service_name="other")]).candidates == ()


def test_an_external_name_has_no_endpoints():
    found = routes(service(type="ExternalName"), [slice_of(("echo-1", READY))])
    assert (found.candidates, found.reasons) == ((), ("ExternalName: a name in DNS, no endpoints",))


def test_what_is_odd_about_a_service_is_said():
    headless = of(("echo-1", READY), clusterIP="None", publishNotReadyAddresses=True)
    assert headless.reasons == (
        "headless: clients dial what DNS tells them, no data plane chooses",
        "publishNotReadyAddresses: every pod counts as ready until it is gone, terminating or not",
    )
    leaving = of(("echo-1", LEAVING | {"ready": True}), publishNotReadyAddresses=True)
    assert said(leaving) == ["10.244.1.11:8080 echo-1: routed, ready although terminating"]


@given(
    st.lists(st.tuples(st.sampled_from(["echo-1", "echo-2", "echo-9"]), st.sampled_from(ALL)), unique_by=lambda e: e[0])
)
def test_the_rules_are_those_of_kube_proxy(entries):
    """CategorizeEndpoints in three lines: the second, deliberately simple reading."""
    ready = {name for name, conditions in entries if conditions["ready"]}
    fallback = {name for name, conditions in entries if conditions["serving"] and conditions["terminating"]}
    assert {candidate.entry.pod for candidate in of(*entries).routed} == (ready or fallback)
