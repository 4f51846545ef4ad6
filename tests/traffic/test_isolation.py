"""Which label lets a pod's owner go of it while its traffic stays."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_stage import pod, service

from tidegate.model import workload as workloads
from tidegate.model.selector import Requirement, Selector
from tidegate.traffic import isolation, not_isolated, selecting
from tidegate.traffic.labels import changed

HASH = "pod-template-hash"


def owner(kind="ReplicaSet", **selector):
    spec = {"replicas": 1, "selector": selector or {"matchLabels": {"app": "echo", HASH: "5d"}}}
    return workloads.decode({"kind": kind, "metadata": {"name": "echo-5d", "namespace": "demo"}, "spec": spec})


def test_a_deployments_pod_is_let_go_by_its_revisions_label_though_service_and_deployment_share_theirs():
    found = isolation(pod(labels={"app": "echo", HASH: "5d"}), [service()], owner())
    assert (found.labels, found.releases) == ({HASH: "tidegate-isolated"}, True)
    assert found.reasons == (
        "ReplicaSet demo/echo-5d selects by pod-template-hash=5d, "
        "and no Service that selects the pod looks at pod-template-hash",
    )


def test_where_a_service_looks_at_the_revision_another_label_of_the_owner_does():
    one = pod(labels={"app": "echo", "tier": "web", HASH: "5d"})
    by = owner(matchLabels={"app": "echo", "tier": "web", HASH: "5d"})
    assert isolation(one, [service("blue", {"app": "echo", HASH: "5d"})], by).labels == {"tier": "tidegate-isolated"}


def test_a_bare_replicaset_that_selects_within_its_service_cannot_let_go_and_keep_the_traffic():
    one, by = pod(), owner(matchLabels={"app": "echo"})
    assert isolation(one, [service()], by) is None
    assert not_isolated(one, [service()], by) == (
        "ReplicaSet demo/echo-5d selects by app=echo, and every one of these labels is looked at by demo/echo"
    )
    assert isolation(one, [], by).labels == {"app": "tidegate-isolated"}


@pytest.mark.parametrize("kind, why", [("StatefulSet", "is its name"), ("DaemonSet", "same node"), ("Job", "second")])
def test_a_pod_that_is_not_like_the_others_is_not_let_go(kind, why):
    one, by = pod(labels={"app": "echo", "x": "1"}), owner(kind, matchLabels={"x": "1"})
    assert isolation(one, [service()], by) is None
    assert why in not_isolated(one, [service()], by)


def test_what_nobody_owns_or_has_let_go_needs_no_isolation():
    assert isolation(pod(), [], None) is None
    assert not_isolated(pod(), [], None) == "nothing owns demo/echo-1: there is nothing to isolate it from"
    gone = pod(labels={"app": "echo", HASH: "tidegate-isolated"})
    assert isolation(gone, [], owner()) is None
    assert not_isolated(gone, [], owner()) == "ReplicaSet demo/echo-5d has let go of it already"


@pytest.mark.parametrize("expression, labels, wanted", [
    ({"key": "x", "operator": "Exists"}, {"x": "1"}, {"x": None}),
    ({"key": "x", "operator": "DoesNotExist"}, {}, {"x": "tidegate-isolated"}),
    ({"key": "x", "operator": "NotIn", "values": ["2"]}, {"x": "1"}, {"x": "2"}),
    ({"key": "x", "operator": "In", "values": ["1", "2"]}, {"x": "1"}, {"x": "tidegate-isolated"}),
    ({"key": "x", "operator": "In", "values": ["1", "tidegate-isolated"]}, {"x": "1"}, {"x": None}),
])  # fmt: skip
def test_every_operator_has_a_value_that_it_is_not_met_by(expression, labels, wanted):
    assert isolation(pod(labels={"a": "1", **labels}), [], owner(matchExpressions=[expression])).labels == wanted


KEYS = st.sampled_from(["a", "b", "c", HASH])
VALUES = st.sampled_from(["1", "2", "tidegate-isolated"])
LABELS = st.dictionaries(KEYS, VALUES, min_size=1)
REQUIREMENTS = st.one_of(
    st.builds(Requirement, KEYS, st.sampled_from(["Exists", "DoesNotExist"])),
    st.builds(
        Requirement,
        KEYS,
        st.sampled_from(["In", "NotIn"]),
        st.lists(VALUES, min_size=1, max_size=2, unique=True).map(tuple),
    ),
)


@given(LABELS, st.lists(LABELS, max_size=3), st.lists(REQUIREMENTS, min_size=1, max_size=3))
def test_after_an_isolation_the_owner_has_let_go_and_every_service_still_selects_by_one_label(labels, wanted, by):
    one = pod(labels=labels)
    services = [service(f"s{number}", selector) for number, selector in enumerate(wanted)]
    held_by = msgspec.structs.replace(owner(), selector=Selector(tuple(by)))
    found = isolation(one, services, held_by)
    before = selecting(one, services)
    looked_at = {key for each in before for key in each.selector.keys}
    possible = held_by.selector.matches(labels) and any(each.key not in looked_at for each in by)
    assert (found is not None) is possible
    if found is None:
        return
    after = changed(labels, found.labels)
    assert len(found.labels) == 1
    assert not held_by.selector.matches(after)
    still = selecting(msgspec.structs.replace(one, labels=after), services)
    assert all(each in still for each in before)
