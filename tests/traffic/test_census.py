"""The census says what the pair by pair functions say, and stays fast at 1,000 Services over 5,000 pods."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st
from kubernetes_stage import pod, service, slice_of

from tidegate.model import endpointslice, workload
from tidegate.model import pod as pods
from tidegate.model import service as services
from tidegate.model.names import DrainRecord, encode_drain
from tidegate.traffic import listings, selecting
from tidegate.traffic.census import Census
from tidegate.traffic.revision import image_tag
from tidegate.traffic.warnings import warnings_of

READY = {"ready": True, "serving": True, "terminating": False}
LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), min_size=1)


@given(st.lists(LABELS, max_size=5), st.lists(LABELS, max_size=5))
def test_it_selects_as_each_service_does_by_itself(of_pods, of_services):
    found = [pod(f"p{index}", labels) for index, labels in enumerate(of_pods)]
    known = [service(f"s{index}", labels) for index, labels in enumerate(of_services)]
    census = Census(found, known)
    for one in found:
        assert census.services_of(one) == selecting(one, known)
    for one in known:
        assert list(census.pods_of(one)) == [each for each in found if one.selects(each.namespace, each.labels)]


def test_it_lists_as_the_rules_say_by_uid_and_by_address():
    here, there = pod("echo-1"), pod("echo-2", ip="10.244.1.12")
    slices = [
        slice_of(("echo-1", READY)),
        slice_of((None, READY), name="mirror", service_name="legacy"),
        slice_of(("echo-9", READY, "node-1", "10.244.1.12"), name="again"),
    ]
    census = Census([here, there], [], slices)
    assert [str(one) for one in census.listings_of(here)] == [str(one) for one in listings(here, slices)]
    assert len(census.listings_of(here)) == 2
    assert census.listings_of(there) == ()


def replicaset(name, uid, revision, deployment):
    return workload.decode(
        {
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": "demo",
                "uid": uid,
                "annotations": {"deployment.kubernetes.io/revision": str(revision)},
                "ownerReferences": [{"kind": "Deployment", "name": deployment, "uid": "uid-dep", "controller": True}],
            },
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "echo", "pod-template-hash": "5d"}}},
            "status": {"readyReplicas": 1},
        }
    )


DEPLOYMENT = workload.decode(
    {
        "kind": "Deployment",
        "metadata": {"name": "echo", "namespace": "demo", "uid": "uid-dep"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "echo"}}},
    }
)


def test_a_pods_revision_is_its_deployments_number_with_the_version_people_gave_it():
    one = pod(labels={"app": "echo", "version": "4.1"}, owner=True)
    census = Census([one], [], [], [replicaset("echo-5d", "uid-rs", 7, "echo"), DEPLOYMENT])
    revision = census.revision_of(one)
    assert (str(revision), revision.version) == ("echo r7", "4.1")
    assert census.workload_of(one) == DEPLOYMENT
    assert census.owned_by(DEPLOYMENT) == (one,)
    assert [(child.desired, child.ready) for child in census.children_of(DEPLOYMENT)] == [(2, 1)]


def test_a_released_pod_is_still_of_the_workload_its_record_names():
    before, owner = {"version": "4.1"}, "ReplicaSet/echo-5d/uid-rs"
    record = DrainRecord(token="t", state="CUT", mode="label", owner=owner, labels=before)
    one = pods.decode(
        {
            "metadata": {
                "name": "p", "namespace": "demo", "uid": "u", "labels": {"app": "tidegate-cut", "version": "x"},
                "annotations": encode_drain(record),
            },
            "spec": {"containers": [{"name": "app", "image": "web:9"}]},
        }
    )  # fmt: skip
    census = Census([one], [], [], [replicaset("echo-5d", "uid-rs", 7, "echo"), DEPLOYMENT])
    assert (str(census.revision_of(one)), census.revision_of(one).version) == ("echo r7", "4.1")
    assert census.owned_by(DEPLOYMENT) == (one,)


def test_an_image_is_called_by_its_tag():
    assert image_tag("registry:5000/web:v2") == "v2"
    assert image_tag("registry:5000/web") == "latest"
    assert image_tag("web@sha256:0123456789abcdef") == "0123456789ab"


def cluster(service_count, pod_count):
    """JSON as a server lists it: every Service of one namespace has its own pods, and all share two labels."""
    each = pod_count // service_count
    made_services, made_slices, made_pods = [], [], []
    for index in range(service_count):
        selector = {"app": f"app-{index}", "zone": "prod"}
        made_services.append(
            {
                "metadata": {"name": f"svc-{index}", "namespace": "prod"},
                "spec": {"selector": selector, "clusterIP": "10.96.0.1", "ports": [{"port": 80, "targetPort": 8080}]},
            }
        )
        entries = []
        for nth in range(each):
            number = index * each + nth
            name, ip = f"app-{index}-{nth}", f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            made_pods.append(
                {
                    "metadata": {"name": name, "namespace": "prod", "uid": f"uid-{number}", "labels": selector},
                    "spec": {"nodeName": f"node-{number % 50}", "containers": [{"name": "app", "image": "web:v1"}]},
                    "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
                }
            )
            ref = {"kind": "Pod", "name": name, "uid": f"uid-{number}"}
            entries.append({"addresses": [ip], "conditions": READY, "nodeName": "node-1", "targetRef": ref})
        made_slices.append(
            {
                "metadata": {
                    "name": f"svc-{index}-x",
                    "namespace": "prod",
                    "labels": {"kubernetes.io/service-name": f"svc-{index}"},
                },
                "addressType": "IPv4",
                "endpoints": entries,
                "ports": [{"port": 8080}],
            }
        )
    return made_pods, made_services, made_slices


def test_every_warning_about_1000_services_over_5000_pods_takes_less_than_a_second_of_cpu():
    """Measured 0.18 s, decoding included; the bound leaves room for a slow machine."""
    listed = cluster(1000, 5000)
    began = time.process_time()
    census = Census(map(pods.decode, listed[0]), map(services.decode, listed[1]), map(endpointslice.decode, listed[2]))
    found = [warnings_of(one, census) for one in census.services]
    assert len(census.pods_of(census.services[7])) == 5
    assert [finding.name for finding in found[0]] == ["ungated"]
    assert time.process_time() - began < 1.0


def test_an_entry_is_the_pod_it_names_and_no_other_that_has_its_address_now():
    later = pod("echo-2", ip="10.244.1.11")
    gone = slice_of(("echo-1", READY)).endpoints[0]
    nameless = slice_of((None, READY)).endpoints[0]
    census = Census([later])
    assert census.pod_of(gone) is None
    assert census.pod_of(nameless) == later
