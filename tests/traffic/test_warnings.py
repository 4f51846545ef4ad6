"""Every warning is a sentence and a next step, and is silent about what is as it should be."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from kubernetes_stage import pod, service, slice_of, workload

from tidegate.model import pod as pods
from tidegate.model import service as services
from tidegate.model import workload as workloads
from tidegate.model.names import HELD, TOMBSTONE, DrainRecord, DrainResult, Ending, encode_drain, encode_result
from tidegate.traffic.census import Census
from tidegate.traffic.held import all_held, held, hold_warnings
from tidegate.traffic.warnings import warnings_of

READY = {"ready": True, "serving": True, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
GATE = {"lifecycle": {"preStop": {"httpGet": {"port": 15299, "path": "/gate/app"}}}}
GATED = {"containers": [{"name": "app", "image": "web:v1", **GATE}]}


def said(*listed, of=None, slices=None, owners=()):
    one = of or service()
    entries = [(each.name, READY) for each in listed]
    census = Census(listed, [one], [slice_of(*entries)] if slices is None else slices, owners)
    return {finding.name: finding for finding in warnings_of(one, census)}


def two(**labels):
    return pod("echo-1", {"app": "echo", **labels}, **GATED), pod("echo-2", {"app": "echo"}, ip="10.244.1.12", **GATED)


def test_a_service_with_two_gated_pods_of_one_version_has_nothing_to_warn_of():
    assert said(*two()) == {}


def test_a_service_that_sends_to_two_versions_names_both():
    found = said(*two(version="4.1"))["two-revisions"]
    assert found.sentence == "it sends to 2 versions: bare (4.1, 1 pod), bare (v1, 1 pod)"
    leaving = pod("echo-1", {"app": "echo", "version": "4.1"}, deleted=True, **GATED)
    assert "two-revisions" not in said(leaving, *two())


def test_a_rollout_is_told_from_two_workloads():
    def replicaset(number):
        meta = {
            "name": f"echo-{number}", "namespace": "demo", "uid": f"rs-{number}",
            "annotations": {"deployment.kubernetes.io/revision": str(number)},
            "ownerReferences": [{"kind": "Deployment", "name": "echo", "uid": "dep", "controller": True}],
        }  # fmt: skip
        return workloads.decode({"kind": "ReplicaSet", "metadata": meta, "spec": {}})

    def owned(name, number):
        ref = {"kind": "ReplicaSet", "name": f"echo-{number}", "uid": f"rs-{number}", "controller": True}
        meta = {"name": name, "namespace": "demo", "uid": name, "labels": {"app": "echo"}, "ownerReferences": [ref]}
        return pods.decode({"metadata": meta, "spec": GATED})

    listed = [owned("echo-1", 1), owned("echo-2", 2)]
    found = said(*listed, owners=[replicaset(1), replicaset(2)])["two-revisions"]
    assert (
        str(found) == "it sends to 2 revisions: echo r1 (v1, 1 pod), echo r2 (v1, 1 pod): wait for the rollout to end"
    )


@pytest.mark.parametrize(
    ("selector", "is_warned"), [({"app": "echo"}, True), ({"app": "echo", "traffic": "on"}, False)]
)
def test_a_selector_within_the_workloads_own_cannot_isolate(selector, is_warned):
    owner = workload("ReplicaSet")
    one = pods.decode(
        {
            "metadata": {
                "name": "echo-1", "namespace": "demo", "uid": "u", "labels": {"app": "echo", "traffic": "on"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "echo", "uid": owner.uid, "controller": True}],
            },
            "spec": GATED,
        }
    )  # fmt: skip
    found = said(one, of=service(selector=selector), owners=[owner])
    assert ("own-selector" in found) == is_warned


def test_what_a_service_is_by_its_spec_is_said():
    assert "not-ready-published" in said(*two(), of=service(publishNotReadyAddresses=True))
    assert "headless" in said(*two(), of=service(clusterIP="None"))
    bare = services.decode({"metadata": {"name": "db", "namespace": "demo"}, "spec": {"clusterIP": "10.96.0.9"}})
    assert sorted(said(of=bare)) == ["last-endpoint", "no-selector"]
    outside = {"type": "ExternalName", "externalName": "db.example"}
    assert said(of=services.decode({"metadata": {"name": "db", "namespace": "demo"}, "spec": outside})) == {}


def test_the_last_ready_endpoint_is_named_and_leaving_ones_do_not_count():
    slices = [slice_of(("echo-1", LEAVING), ("echo-2", READY))]
    assert said(*two(), slices=slices)["last-endpoint"].sentence == "echo-2 is its last ready endpoint"
    assert said(*two(), slices=[])["last-endpoint"].sentence == "it has no ready endpoint"


def test_pods_without_a_gate_are_counted():
    assert said(pod("echo-1"), *two()[1:])["ungated"].sentence.startswith("1 of its 2 pods have no gate")


# --- held pods ---

CUT = DrainRecord(
    token="t", state="CUT", mode="label", verb="cut", by="ann@host", at="2026-11-21T10:00:00Z",
    labels={"app": "echo"}, changed={"app": "tidegate-cut", "canary": None}, until="2026-11-21T11:00:00Z",
)  # fmt: skip


def holding(record=CUT, result=None, **labels):
    annotations = {**(encode_drain(record) if record else {}), **(encode_result(result) if result else {})}
    meta = {"name": "echo-1", "namespace": "demo", "uid": "u", "labels": labels, "annotations": annotations}
    return pods.decode({"metadata": meta, "spec": {"containers": [{"name": "app"}]}})


def changed(**fields):
    import msgspec

    return msgspec.structs.replace(CUT, **fields)


def test_a_pod_is_held_by_its_label_or_its_record_and_not_by_a_gate():
    assert held(holding(None)) is None
    assert held(holding(None, **{HELD: "isolated"})).verb == "isolate"
    assert "not known" in held(holding(None, **{HELD: "cut"})).problem
    assert held(holding(None, **{TOMBSTONE: "t"})).next_steps == ("tidegate drain pod/echo-1 -n demo",)
    assert held(holding()).record == CUT
    assert held(holding(changed(mode="gate"))) is None
    assert held(holding(changed(state="RESTORED"))) is None
    unreadable = pods.decode(
        {
            "metadata": {"name": "x", "annotations": {"tidegate.dev/drain": "{"}},
            "spec": {"containers": []},
        }
    )
    assert held(unreadable).problem != ""


def test_an_orphan_is_a_pod_that_nobody_is_at_work_on():
    at_work = changed(holder="h", lease_until="2026-11-21T12:00:10Z")
    assert not held(holding(at_work)).is_orphan(NOW)
    assert held(holding(changed(holder="h", lease_until="2026-11-21T11:59:59Z"))).is_orphan(NOW)
    assert held(holding()).is_orphan(NOW)
    assert [one.pod.name for one in all_held([holding(), pod()])] == ["echo-1"]


def test_labels_changed_by_hand_and_a_hold_past_its_end_are_said():
    found = {one.name: one.sentence for one in hold_warnings(held(holding(app="mine", canary="x")), NOW)}
    assert found == {
        "labels-changed": "its labels were changed by hand since it was cut: app=mine, canary=x",
        "past-until": "it was cut by ann@host until 2026-11-21T11:00:00Z, and that is over",
    }
    assert hold_warnings(held(holding(changed(until="2026-11-21T13:00:00Z"), app="tidegate-cut")), NOW) == ()
    assert held(holding(result=DrainResult(Ending.ASSUMED, "x"))).result.result is Ending.ASSUMED
