"""Who selects a pod, which slices list it, and which labels take it out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from kubernetes_stage import pod, service, slice_of

from tidegate.model.endpoint import Endpoint
from tidegate.model.selector import of_labels, parse
from tidegate.traffic import cut, every_endpoint, floors, listings, selecting, selections, serving_endpoints, tombstone

READY = {"ready": True}
LEAVING = {"ready": False, "serving": True, "terminating": True}


def test_a_service_that_does_not_select_the_pod_says_which_label_is_missing():
    found = selections(
        pod(labels={"app": "test-offline", "zone": "prod"}),
        [service("echo", {"zone": "prod"}), service("biz1", {"app": "test", "version": "4.1"})],
    )
    assert [str(selection) for selection in found] == [
        "demo/echo selects it",
        "demo/biz1 does not: app=test is asked for, it has app=test-offline; "
        "version=4.1 is asked for, it has no such label",
    ]


def test_services_of_other_namespaces_and_without_selector_are_left_out():
    elsewhere = service()
    assert selecting(pod(), [elsewhere]) == (elsewhere,)
    assert selections(pod(), [service("x", type="ExternalName")]) == ()


def test_a_pod_is_found_in_slices_by_uid_and_by_address():
    mine = slice_of(("echo-1", READY))
    manual = slice_of((None, READY), name="manual", service_name="legacy")
    other = slice_of(("echo-2", READY), name="third")
    found = listings(pod(), [mine, manual, other])
    assert [(listing.service, listing.by) for listing in found] == [("demo/echo", "uid"), ("demo/legacy", "address")]


def test_a_host_network_pod_is_found_by_address_only_with_its_own_port():
    on_host = pod(hostNetwork=True)
    assert every_endpoint(on_host) == (Endpoint("10.244.1.11", 8080),)
    assert every_endpoint(pod()) == (Endpoint("10.244.1.11"),)
    assert listings(on_host, [slice_of((None, READY))])
    other_port = pod(hostNetwork=True, containers=[{"name": "app", "ports": [{"containerPort": 9999}]}])
    assert not listings(other_port, [slice_of((None, READY))])


def test_where_a_pod_serves_is_what_its_slices_say():
    slices = [slice_of(("echo-1", LEAVING)), slice_of(("echo-1", READY), name="twice")]
    assert serving_endpoints(pod(), slices) == (Endpoint("10.244.1.11", 8080),)
    assert serving_endpoints(pod(), []) == ()


def test_a_label_only_the_service_looks_at_is_cut_first():
    found = cut(
        pod(labels={"app": "echoapp", "backend": "default"}),
        [service("echo-service", {"backend": "default", "app": "echoapp"})],
        of_labels({"app": "echoapp"}),
    )
    assert (found.labels, found.releases) == ({"backend": "tidegate-cut"}, False)
    assert found.reasons == ("demo/echo-service selects it by app=echoapp,backend=default",)


def test_a_shared_label_is_cut_when_there_is_no_other_and_the_replacement_is_announced():
    found = cut(pod(), [service()], of_labels({"app": "echo"}))
    assert (found.labels, found.releases) == ({"app": "tidegate-cut"}, True)
    assert found.reasons[-1] == "its owner selects by app=echo too: it lets go of the pod"


def test_one_label_that_several_services_look_at_is_enough():
    labels = {"app": "echo", "a": "1", "b": "2"}
    by_both = [service("one", {"a": "1", "app": "echo"}), service("two", {"b": "2", "app": "echo"})]
    assert cut(pod(labels=labels), by_both, None).labels == {"app": "tidegate-cut"}
    assert cut(pod(labels=labels), by_both, parse("app=echo")).labels == {"a": "tidegate-cut", "b": "tidegate-cut"}


def test_a_pod_in_no_service_needs_no_cut():
    assert cut(pod(), [service("other", {"x": "y"})], None).labels == {}


LABELS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12"), min_size=1)


@given(LABELS, st.lists(LABELS, max_size=4), LABELS)
def test_after_a_cut_no_service_selects_the_pod_and_after_a_tombstone_its_owner_does_not_either(labels, wanted, owner):
    before = pod(labels=labels)
    services = [service(f"s{n}", selector) for n, selector in enumerate(wanted)]
    after = pod(labels=labels | cut(before, services, of_labels(owner)).labels)
    assert selecting(after, services) == ()
    dead = pod(labels=after.labels | tombstone(after, "t0k"))
    assert selecting(dead, services) == ()
    assert not of_labels(owner).matches(dead.labels)
    assert dead.labels["tidegate.dev/tombstone"] == "t0k"


def test_a_service_keeps_its_floor_when_another_endpoint_is_ready():
    (floor,) = floors(pod(), [service()], [slice_of(("echo-1", READY), ("echo-2", READY))])
    assert floor.is_kept
    assert str(floor) == "demo/echo would keep 1 other ready endpoints, the floor is 1"


def test_pods_that_are_being_drained_do_not_count_for_the_floor():
    slices = [slice_of(("echo-1", READY), ("echo-2", READY))]
    assert not floors(pod(), [service()], slices, leaving=["uid-echo-2"])[0].is_kept
    assert not floors(pod(), [service()], [slice_of(("echo-1", READY), ("echo-2", LEAVING))])[0].is_kept
    assert floors(pod(), [service()], [], needed=0)[0].is_kept


def test_a_local_policy_has_a_floor_on_the_pods_node():
    slices = [slice_of(("echo-1", READY, "node-1"), ("echo-2", READY, "node-2"))]
    everywhere, here = floors(pod(), [service(externalTrafficPolicy="Local")], slices)
    assert everywhere.is_kept
    assert str(here) == "demo/echo would keep 0 other ready endpoints on node-1, the floor is 1"
