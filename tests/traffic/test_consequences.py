"""What else looks at the labels that a verb would touch."""

from __future__ import annotations

import pytest

from tidegate.model import pod as pods
from tidegate.model.selector import of_labels, parse
from tidegate.traffic.consequences import Onlooker, after, consequences, restarts, severed, unmanaged


def pod(labels=None, **container):
    return pods.decode(
        {
            "metadata": {"name": "echo-1", "namespace": "demo", "uid": "u", "labels": labels or {"app": "echo"}},
            "spec": {"containers": [{"name": "echo", **container}]},
        }
    )


CUT = {"app": "tidegate-cut"}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("PodDisruptionBudget", "no longer counts it"),
        ("HorizontalPodAutoscaler", "no longer measures it"),
        ("PodMonitor", "stops scraping it"),
        ("Whatever", "lets go of it"),
    ],
)
def test_who_selects_the_pod_by_a_touched_label_is_named_with_what_follows(kind, said):
    (sentence,) = consequences(pod(), CUT, [Onlooker(kind, "x", of_labels({"app": "echo"}))])
    assert sentence.startswith(f"{kind} x") and said in sentence and "app" in sentence


def test_who_looks_at_other_labels_is_not_named():
    onlookers = [Onlooker("PodMonitor", "x", of_labels({"tier": "web"})), Onlooker("PodMonitor", "y", parse("app"))]
    assert consequences(pod(), CUT, onlookers) == ()


def test_who_begins_to_select_it_is_named_too():
    (sentence,) = consequences(pod(), CUT, [Onlooker("PodMonitor", "cuts", of_labels(CUT))])
    assert sentence == "PodMonitor cuts (by app) begins to select it"


def test_a_policy_that_looks_at_a_touched_key_severs_whatever_its_value():
    policies = [
        Onlooker("NetworkPolicy", "web", of_labels({"app": "web"}), "ingress"),
        Onlooker("NetworkPolicy", "web", of_labels({"app": "web"}), "podSelector"),
        Onlooker("NetworkPolicy", "other", of_labels({"tier": "x"})),
    ]
    assert severed(pod(), CUT, policies) == ("NetworkPolicy web selects on app: in-flight work would die",)


def test_a_budget_that_goes_on_selecting_an_unowned_pod_is_named():
    budget = Onlooker("PodDisruptionBudget", "floor", of_labels({"app": "echo"}))
    released = {"pod-template-hash": "tidegate-cut"}
    assert "count of expected pods is off" in unmanaged(pod(), released, [budget])[0]
    assert unmanaged(pod(), CUT, [budget]) == ()


def test_a_liveness_probe_is_warned_about():
    assert "restarts the container" in restarts(pod(livenessProbe={"httpGet": {"port": 8080}}))[0]
    assert restarts(pod()) == ()


def test_a_removed_label_is_gone_afterwards():
    assert after({"a": "1", "b": "2"}, {"a": None, "c": "3"}) == {"b": "2", "c": "3"}
