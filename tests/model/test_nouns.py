"""Kubernetes JSON -> nouns: partial, null-tolerant, and an error names its path."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kubernetes_stage import pod as a_pod
from kubernetes_stage import workload

from tidegate.model import Malformed, endpointslice, node, pod, service
from tidegate.model import workload as workloads
from tidegate.model.selector import of_labels

REAL = Path(__file__).parent.parent / "golden" / "kubernetes"


def container(name="app", **hook):
    return {"name": name, "lifecycle": {"preStop": hook}} if hook else {"name": name}


def gated(name="app", **call):
    return container(name, httpGet={"port": 15299, "path": f"/gate/{name}", **call})


def pod_of(*containers, **spec):
    return pod.decode({"metadata": {"name": "p"}, "spec": {"containers": list(containers), **spec}})


def test_a_pod_of_a_real_cluster_is_read():
    found = pod.decode(json.loads((REAL / "api-pod-released.json").read_text("utf-8")))
    assert str(found) == "default/web-dcf758df4-bkgcq"
    assert found.labels == {"app": "web-isolated", "pod-template-hash": "dcf758df4"}
    assert found.created_at == datetime(2026, 11, 21, 8, 16, 13, tzinfo=UTC)
    assert (found.owner, found.deletion_timestamp, found.grace_seconds) == (None, None, 30)
    assert not found.is_gated


def test_slices_of_a_real_cluster_are_read():
    listed = json.loads((REAL / "api-endpointslice-3ready.json").read_text("utf-8"))
    slices = [endpointslice.decode(item) for item in listed["items"]]
    entries = [entry for found in slices if found.service == "web" for entry in found.endpoints]
    assert sorted(str(entry) for entry in entries) == [
        f"web-dcf758df4-{suffix} (ready, serving)" for suffix in ("bkgcq", "h59tq", "knjrc")
    ]


def test_a_leaving_pod_is_terminating_and_may_still_be_ready():
    found = a_pod(deleted=True)
    assert found.is_terminating
    assert found.is_ready


def test_null_is_an_empty_list():
    found = pod.decode(
        {
            "metadata": {"name": "p", "labels": None, "ownerReferences": None},
            "spec": {"containers": [{"name": "app", "ports": None, "lifecycle": None}]},
            "status": {"podIPs": None, "conditions": None},
        }
    )
    assert (found.ips, found.ports, found.conditions, found.labels) == ((), (), (), {})
    empty = endpointslice.decode({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": None, "ports": None})
    assert empty.endpoints == ()


def test_addresses_are_canonical_and_each_is_there_once():
    status = {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "FD00:0::1"}]}
    found = pod.decode({"metadata": {"name": "p"}, "spec": {"containers": []}, "status": status})
    assert found.ips == ("10.0.0.1", "fd00::1")


def test_a_pod_is_gated_only_when_every_container_is():
    assert pod_of(gated()).is_gated
    assert pod_of(gated("a"), gated("b")).gated == ("a", "b")
    assert not pod_of(gated("a"), container("b")).is_gated
    assert not pod_of().is_gated


@pytest.mark.parametrize(
    "other",
    [
        container(sleep={"seconds": 5}),
        container(exec={"command": ["sleep", "5"]}),
        gated(port=8080),
        gated(path="/gate/other"),
    ],
)
def test_another_hook_is_no_gate(other):
    assert not pod_of(other).is_gated


def test_the_gate_port_may_be_written_as_text():
    assert pod_of(gated(port="15299")).is_gated


@pytest.mark.parametrize(
    ("decode", "obj", "message"),
    [
        (pod.decode, None, "Pod: Expected `object`, got `null` at $"),
        (pod.decode, {"metadata": {"name": 3}, "spec": {}}, "Pod: Expected `str`, got `int` at $.metadata.name"),
        (
            pod.decode,
            {"metadata": {"namespace": "demo", "name": "p"}, "spec": {"containers": [{"name": "a"}, {}]}},
            "Pod demo/p: Object missing required field `name` at $.spec.containers[1]",
        ),
        (
            pod.decode,
            {"metadata": {"name": "p", "deletionTimestamp": "soon"}, "spec": {"containers": []}},
            "Pod p: Invalid RFC3339 encoded datetime at $.metadata.deletionTimestamp",
        ),
        (
            service.decode,
            {"metadata": {"name": "s"}, "spec": {"ports": [{"port": "http"}]}},
            "Service s: Expected `int`, got `str` at $.spec.ports[0].port",
        ),
        (
            endpointslice.decode,
            {"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"conditions": {}}]},
            "EndpointSlice e: Object missing required field `addresses` at $.endpoints[0]",
        ),
        (
            workloads.decode,
            {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": "3"}},
            "Deployment d: Expected `int | null`, got `str` at $.spec.replicas",
        ),
        (node.decode, {"metadata": {}}, "Node: Object missing required field `name` at $.metadata"),
    ],
)
def test_a_malformed_object_is_named_with_its_path(decode, obj, message):
    with pytest.raises(Malformed) as raised:
        decode(obj)
    assert str(raised.value) == message


def test_a_service_without_selector_selects_nothing():
    for spec in ({}, {"selector": {}}, {"selector": None}, {"type": "ExternalName", "selector": {"a": "b"}}):
        found = service.decode({"metadata": {"name": "s", "namespace": "demo"}, "spec": spec})
        assert found.selector is None
        assert not found.selects("demo", {"a": "b"})


def test_a_service_selects_in_its_own_namespace_only():
    found = service.decode({"metadata": {"name": "s", "namespace": "demo"}, "spec": {"selector": {"a": "b"}}})
    assert found.selects("demo", {"a": "b", "c": "d"})
    assert not found.selects("other", {"a": "b"})


def test_a_headless_or_foreign_service_is_not_proxied():
    headless = service.decode({"metadata": {"name": "s"}, "spec": {"clusterIP": "None"}})
    assert headless.is_headless
    assert not headless.is_proxied
    labels = {"service.kubernetes.io/service-proxy-name": "other"}
    assert not service.decode({"metadata": {"name": "s", "labels": labels}, "spec": {}}).is_proxied
    assert service.decode({"metadata": {"name": "s"}, "spec": {"clusterIPs": ["10.0.0.1"]}}).is_proxied


@pytest.mark.parametrize(
    ("conditions", "ready", "serving", "terminating"),
    [
        ({}, True, True, False),
        ({"ready": None}, True, True, False),
        ({"ready": False}, False, False, False),
        ({"ready": False, "serving": True, "terminating": True}, False, True, True),
    ],
)
def test_an_unknown_condition_is_read_as_the_api_asks_for(conditions, ready, serving, terminating):
    raw = {"metadata": {"name": "e"}, "addressType": "IPv4"}
    (entry,) = endpointslice.decode(
        raw | {"endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}]}
    ).endpoints
    assert (entry.is_ready, entry.is_serving, entry.is_terminating) == (ready, serving, terminating)
    assert entry.ready is conditions.get("ready")


def test_a_node_is_read():
    found = node.decode(
        {
            "metadata": {"name": "node-1"},
            "spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n"}],
                "conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}],
            },
        }
    )
    assert (found.addresses, found.is_ready, found.is_out_of_service) == (("10.0.0.1",), False, True)


def test_a_workload_is_read():
    found = workloads.decode(
        {
            "kind": "Deployment",
            "metadata": {"name": "echo", "annotations": {"deployment.kubernetes.io/revision": "3"}},
            "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "echo"}}},
        }
    )
    assert (found.replicas, found.revision, found.can_surge) == (4, 3, True)
    assert found.selector == of_labels({"app": "echo"})


def test_a_revision_that_is_no_number_is_malformed():
    annotations = {"deployment.kubernetes.io/revision": "three"}
    with pytest.raises(Malformed, match="'three' is not a revision"):
        workloads.decode({"kind": "Deployment", "metadata": {"name": "d", "annotations": annotations}, "spec": {}})


@pytest.mark.parametrize(
    ("owner", "can_surge"),
    [
        ({}, True),
        ({"strategy": "RollingUpdate"}, True),
        ({"strategy": "Recreate"}, False),
        ({"kind": "ReplicaSet"}, True),
        ({"kind": "StatefulSet"}, False),
        ({"kind": "DaemonSet"}, False),
        ({"kind": "DaemonSet", "surge": 0}, False),
        ({"kind": "DaemonSet", "surge": 1}, True),
        ({"kind": "SomethingElse"}, False),
    ],
)
def test_some_workloads_replace_a_pod_only_when_it_is_gone(owner, can_surge):
    assert workload(**owner).can_surge is can_surge
