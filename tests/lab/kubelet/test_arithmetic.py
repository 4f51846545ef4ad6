"""The kubelet's arithmetic: grace periods, back-off, thresholds, phases, conditions, addresses, environment."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime

import pytest

from tidegate.lab.kubelet import conditions, grace
from tidegate.lab.kubelet.addresses import AddressesExhausted, PodAddresses
from tidegate.lab.kubelet.backoff import Backoff, duration
from tidegate.lab.kubelet.environment import ConfigError, Environment, Place, command_line, expand, field
from tidegate.lab.kubelet.grace import Cause
from tidegate.lab.kubelet.phase import phase
from tidegate.lab.kubelet.plan import Next, plan
from tidegate.lab.kubelet.states import ContainerFacts, Running, Terminated, Waiting
from tidegate.lab.kubelet.thresholds import ProbeTiming, Run

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNNING = Running(NOW)
SUCCEEDED = Terminated(0, "Completed", NOW, NOW)
FAILED = Terminated(1, "Error", NOW, NOW)


def pod(deletion=None, spec=None):
    metadata = {} if deletion is None else {"deletionGracePeriodSeconds": deletion}
    return {"metadata": metadata, "spec": {} if spec is None else {"terminationGracePeriodSeconds": spec}}


@pytest.mark.parametrize(
    ("deletion", "spec", "before", "seconds"),
    [
        (None, None, 0, 30),
        (None, 45, 0, 45),
        (20, 45, 0, 20),  # the API's value is the truth
        (60, 45, 0, 60),
        (0, 45, 0, 45),  # zero is "not set" to the pod worker
        (20, 45, 10, 10),  # it only ever decreases
        (5, 45, 10, 5),
        (1, 45, 0, 1),
        (None, 0, 0, 1),  # and never below one
    ],
)
def test_the_pods_grace_period(deletion, spec, before, seconds):
    assert grace.pod_grace(pod(deletion, spec), before) == seconds


@pytest.mark.parametrize(
    ("cause", "container", "seconds"),
    [
        (Cause.LIVENESS, {}, 30),
        (Cause.LIVENESS, {"livenessProbe": {"terminationGracePeriodSeconds": 7}}, 7),
        (Cause.LIVENESS, {"startupProbe": {"terminationGracePeriodSeconds": 7}}, 30),
        (Cause.STARTUP, {"startupProbe": {"terminationGracePeriodSeconds": 7}}, 7),
        (Cause.POST_START, {"livenessProbe": {"terminationGracePeriodSeconds": 7}}, 30),
    ],
)
def test_a_probes_grace_period_counts_only_for_its_own_kills(cause, container, seconds):
    assert grace.container_grace(pod(spec=30), container, cause) == seconds
    assert grace.container_grace(pod(deletion=12, spec=30), container, cause) == 12


@pytest.mark.parametrize(
    ("seconds", "elapsed", "budget"),
    [
        (30, 0.0, 30),
        (30, 3.999, 27),
        (30, 4.0, 26),
        (20, 20.0, 2),
        (20, 19.0, 2),
        (20, 18.0, 2),
        (20, 17.9, 3),
        (1, 0.0, 2),
    ],
)
def test_whole_seconds_are_deducted_and_two_are_always_left(seconds, elapsed, budget):
    assert grace.stop_budget(grace.after(seconds, elapsed)) == budget


def test_the_back_off_doubles_to_five_minutes_and_is_forgotten_after_ten():
    backoff, now, waits = Backoff(), 0.0, []
    for _ in range(8):
        waits.append(backoff.remaining(now, now))
        backoff.advance(now, now + waits[-1])
        now += waits[-1]
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    assert backoff.remaining(now + 600, now + 600) == 300
    assert backoff.remaining(now + 601, now + 601) == 0
    backoff.advance(now + 601, now + 601)
    assert backoff.delay_seconds == 10


@pytest.mark.parametrize(
    ("seconds", "text"), [(10, "10s"), (80, "1m20s"), (160, "2m40s"), (300, "5m0s"), (3600, "1h0m0s")]
)
def test_durations_are_written_as_go_does(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("successes", [1, 2, 3])
@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_run_settles_a_belief_exactly_at_its_threshold(successes, failures):
    """Every sequence of seven results, against the definition: the last N results are equal."""
    for results in itertools.product([True, False], repeat=7):
        run = Run(ProbeTiming(successes=successes, failures=failures))
        for count, passed in enumerate(results, 1):
            needed = successes if passed else failures
            settled = count >= needed and all(result == passed for result in results[count - needed : count])
            assert run.take(passed) == (passed if settled else None)


def test_a_probes_numbers_have_the_apis_defaults():
    assert ProbeTiming.of({}) == ProbeTiming(0, 10, 1, 1, 3)
    given = {
        "initialDelaySeconds": 1,
        "periodSeconds": 2,
        "timeoutSeconds": 3,
        "successThreshold": 4,
        "failureThreshold": 5,
    }
    assert ProbeTiming.of(given) == ProbeTiming(1, 2, 3, 4, 5)


def facts(state, role="main", name="app", **fields):
    return ContainerFacts(name, "image", role, state, **fields)


CRASHING = {"state": Waiting("CrashLoopBackOff"), "last_state": FAILED}


@pytest.mark.parametrize(
    ("containers", "policy", "expected"),
    [
        ([facts(Waiting())], "Always", "Pending"),
        ([facts(RUNNING)], "Always", "Running"),
        ([facts(RUNNING), facts(Waiting(), name="b")], "Always", "Pending"),
        ([facts(RUNNING), facts(FAILED, name="b")], "Never", "Running"),
        ([facts(FAILED)], "Always", "Running"),
        ([facts(SUCCEEDED)], "Always", "Running"),
        ([facts(SUCCEEDED)], "OnFailure", "Succeeded"),
        ([facts(FAILED)], "OnFailure", "Running"),
        ([facts(SUCCEEDED)], "Never", "Succeeded"),
        ([facts(SUCCEEDED), facts(FAILED, name="b")], "Never", "Failed"),
        ([facts(**CRASHING)], "Always", "Running"),
        ([facts(RUNNING, "init", "i"), facts(Waiting())], "Always", "Pending"),
        ([facts(SUCCEEDED, "init", "i"), facts(RUNNING)], "Always", "Running"),
        ([facts(FAILED, "init", "i"), facts(Waiting())], "Never", "Failed"),
        ([facts(FAILED, "init", "i"), facts(Waiting())], "Always", "Pending"),
        ([facts(RUNNING, "sidecar", "s", started=False), facts(Waiting())], "Always", "Pending"),
        ([facts(RUNNING, "sidecar", "s", started=True), facts(RUNNING)], "Always", "Running"),
    ],
)
def test_the_phase_of_a_living_pod(containers, policy, expected):
    assert phase(containers, policy, is_ending=False) == expected


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([facts(SUCCEEDED)], "Succeeded"),
        ([facts(FAILED)], "Failed"),
        ([facts(SUCCEEDED), facts(FAILED, name="b")], "Failed"),
        ([facts(**CRASHING)], "Failed"),
    ],
)
def test_the_last_phase_of_a_deleted_pod(containers, expected):
    assert phase(containers, "Always", is_ending=True) == expected


@pytest.mark.parametrize(
    ("containers", "policy", "was_initialized", "expected"),
    [
        ([facts(Waiting())], "Always", False, Next(("app",))),
        ([facts(RUNNING)], "Always", True, Next()),
        ([facts(FAILED)], "Always", True, Next(("app",))),
        ([facts(SUCCEEDED)], "OnFailure", True, Next(is_over=True)),
        ([facts(FAILED)], "OnFailure", True, Next(("app",))),
        ([facts(**CRASHING)], "OnFailure", True, Next(("app",))),
        ([facts(FAILED)], "Never", True, Next(is_over=True)),
        ([facts(FAILED), facts(RUNNING, name="b")], "Never", True, Next()),
        ([facts(Waiting()), facts(Waiting(), name="b")], "Always", False, Next(("app", "b"))),
        ([facts(Waiting(), "init", "i"), facts(Waiting())], "Always", False, Next(("i",))),
        ([facts(RUNNING, "init", "i"), facts(Waiting())], "Always", False, Next()),
        ([facts(FAILED, "init", "i"), facts(Waiting())], "Never", False, Next(is_over=True)),
        ([facts(FAILED, "init", "i"), facts(Waiting())], "Always", False, Next(("i",))),
        ([facts(SUCCEEDED, "init", "i"), facts(Waiting())], "Always", False, Next(("app",))),
        ([facts(Waiting(), "sidecar", "s"), facts(Waiting())], "Always", False, Next(("s",))),
        ([facts(RUNNING, "sidecar", "s"), facts(Waiting())], "Always", False, Next()),
        ([facts(RUNNING, "sidecar", "s", started=True), facts(Waiting())], "Always", False, Next(("app",))),
        ([facts(FAILED, "sidecar", "s"), facts(RUNNING)], "Always", True, Next(("s",))),
        ([facts(RUNNING, "sidecar", "s", started=True), facts(SUCCEEDED)], "Never", True, Next(is_over=True)),
    ],
)
def test_what_a_pod_needs_next(containers, policy, was_initialized, expected):
    assert plan(containers, policy, was_initialized) == expected


def test_containers_ready_names_the_unready():
    found = conditions.containers_ready([facts(RUNNING), facts(RUNNING, name="b", ready=True)], "Running")
    assert (found.is_true, found.reason, found.message) == (
        False, "ContainersNotReady", "containers with unready status: [app]"
    )  # fmt: skip
    assert conditions.containers_ready([facts(RUNNING, ready=True)], "Running").is_true
    assert conditions.containers_ready([facts(SUCCEEDED)], "Succeeded").reason == "PodCompleted"
    assert conditions.containers_ready([facts(FAILED)], "Failed").reason == "PodFailed"


@pytest.mark.parametrize("containers_are", [True, False])
@pytest.mark.parametrize("gate", [None, "True", "False", "Unknown"])
def test_ready_needs_the_containers_and_every_gate(containers_are, gate):
    known = {} if gate is None else {"a/b": {"type": "a/b", "status": gate}}
    inner = conditions.Condition("ContainersReady", containers_are, "" if containers_are else "ContainersNotReady")
    assert conditions.ready(inner, [], known).is_true == containers_are
    found = conditions.ready(inner, ["a/b"], known)
    assert found.is_true == (containers_are and gate == "True")
    if containers_are and gate is None:
        assert found.message == 'corresponding condition of pod readiness gate "a/b" does not exist.'


def test_a_transition_time_moves_only_with_the_status():
    before = {"type": "Ready", "status": "True", "lastTransitionTime": "then"}
    assert conditions.Condition("Ready", True).render(before, "now")["lastTransitionTime"] == "then"
    assert conditions.Condition("Ready", False).render(before, "now")["lastTransitionTime"] == "now"
    assert conditions.Condition("Ready", False).render(None, "now")["lastTransitionTime"] == "now"


def test_a_freed_address_is_the_last_to_be_handed_out_again():
    addresses = PodAddresses("127.17.1")
    first = addresses.take()
    addresses.release(first)
    later = [addresses.take() for _ in range(252)]
    assert first == "127.17.1.2" and first not in later
    assert addresses.take() == first
    with pytest.raises(AddressesExhausted):
        addresses.take()
    addresses.release("127.16.0.11")  # a host-network pod's: not ours


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)", "1"), ("$(A)-$(B)", "1-2"), ("$(C)", "$(C)"), ("$$(A)", "$(A)"), ("$$", "$"), ("$A", "$A"),
        ("a$", "a$"), ("$(", "$("), ("$($(A))", "$($(A))"),
    ],
)  # fmt: skip
def test_variables_expand_as_in_kubernetes(text, result):
    assert expand(text, {"A": "1", "B": "2"}) == result


def test_the_environment_is_the_labs_then_the_containers_own():
    meta = {"name": "web", "namespace": "ns", "uid": "u", "labels": {"app": "x"}}
    the_pod = {"metadata": meta, "spec": {"serviceAccountName": "sa"}}
    refs = {"NAME": "metadata.name", "APP": "metadata.labels['app']", "IP": "status.podIP", "HOST": "status.hostIP"}
    env = [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in refs.items()]
    env += [{"name": "URL", "value": "http://$(IP):80"}, {"name": "NODE_NAME", "value": "mine"}, {"name": "NONE"}]
    place = Place("1.2.3.4", "node-1", "5.6.7.8")
    built = asyncio.run(Environment(None, {"LAB": "x"}).build(the_pod, {"image": "i:1", "env": env}, place))
    assert built == {
        "LAB": "x", "HOSTNAME": "web", "POD_NAME": "web", "POD_NAMESPACE": "ns", "POD_IP": "1.2.3.4",
        "NODE_NAME": "mine", "TIDEGATE_IMAGE": "i:1", "NAME": "web", "APP": "x", "IP": "1.2.3.4", "HOST": "5.6.7.8",
        "URL": "http://1.2.3.4:80", "NONE": "",
    }  # fmt: skip
    assert command_line({"command": ["a", "$(IP)"], "args": ["$(X)"]}, built) == ("a", "1.2.3.4", "$(X)")
    with pytest.raises(ConfigError):
        field(the_pod, "status.nonsense", place)
