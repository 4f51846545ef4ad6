"""The patch that gives a workload its gate, and the workloads that get none."""

from __future__ import annotations

import pytest

from tidegate.drain.gating import GATE_TOKEN, CannotBeGated, gate_patch

SLEEPS = [
    {"sleep": {"seconds": 15}},
    {"exec": {"command": ["sleep", "15"]}},
    {"exec": {"command": ["/bin/sleep", "15"]}},
    {"exec": {"command": ["sh", "-c", "sleep 15"]}},
    {"exec": {"command": ["/bin/sh", "-c", "exec sleep 5s;"]}},
]
OTHERS = [
    {"exec": {"command": ["/bin/sh", "-c", "sleep 15 && nginx -s quit"]}},
    {"exec": {"command": ["nginx", "-s", "quit"]}},
    {"exec": {"command": ["sh", "-c", "touch /draining; sleep 15"]}},
    {"httpGet": {"path": "/quit", "port": 8080}},
    {"httpGet": {"path": "/gate/web", "port": 15299, "host": "127.0.0.1"}},
]


def workload(*hooks, grace=None, **pod):
    containers = [
        {"name": name, "image": "x", **({"lifecycle": {"preStop": hook}} if hook else {})}
        for name, hook in zip(("web", "side"), hooks, strict=False)
    ]
    own = {} if grace is None else {"terminationGracePeriodSeconds": grace}
    return {"spec": {"template": {"spec": {"containers": containers, **own, **pod}}}}


def gate(name):
    return {"path": f"/gate/{name}", "port": 15299}


def containers_of(found):
    return {
        one["name"]: one["lifecycle"]["preStop"]
        for one in found.patch["spec"]["template"]["spec"].get("containers", [])
    }


def test_every_container_gets_the_hook_with_its_own_name_and_the_grace_is_raised():
    found = gate_patch(workload(None, None))
    assert containers_of(found) == {"web": {"httpGet": gate("web")}, "side": {"httpGet": gate("side")}}
    assert found.patch["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 60


def test_a_longer_grace_is_left_alone():
    found = gate_patch(workload(None, grace=300))
    assert "terminationGracePeriodSeconds" not in found.patch["spec"]["template"]["spec"]
    assert found.grace_seconds == 300


@pytest.mark.parametrize("hook", SLEEPS)
def test_a_plain_sleep_is_taken_away_by_name(hook):
    found = gate_patch(workload(hook, grace=60))
    assert containers_of(found) == {"web": {"httpGet": gate("web"), **dict.fromkeys(hook)}}
    assert found.replaced == ("web",)


@pytest.mark.parametrize("hook", OTHERS)
def test_a_hook_that_does_something_is_never_taken_away(hook):
    with pytest.raises(CannotBeGated, match="container side has a preStop hook of its own"):
        gate_patch(workload(None, hook))


def test_what_is_gated_is_left_alone():
    gated = workload({"httpGet": gate("web")}, {"httpGet": gate("side")}, grace=60)
    assert gate_patch(gated).patch == {}
    half = workload({"httpGet": gate("web")}, None, grace=60)
    assert list(containers_of(gate_patch(half))) == ["side"]


def test_a_pod_in_its_nodes_network_gets_none():
    with pytest.raises(CannotBeGated, match="node's network"):
        gate_patch(workload(None, hostNetwork=True))


TOKEN = "0123456789abcdef" * 2


def on_host(*hooks, port=8080, annotation="", **pod):
    made = workload(*hooks, hostNetwork=True, **pod)
    template = made["spec"]["template"]
    for one in template["spec"]["containers"]:
        one["ports"] = [{"containerPort": port}] if port else []
    if annotation:
        template["metadata"] = {"annotations": {GATE_TOKEN: annotation}}
    return made


def test_on_the_nodes_network_the_hook_names_the_loopback_and_a_token_that_the_pod_carries():
    found = gate_patch(on_host(None), TOKEN)
    call = {**gate("web"), "host": "127.0.0.1", "httpHeaders": [{"name": "X-Tidegate-Gate", "value": TOKEN}]}
    assert containers_of(found) == {"web": {"httpGet": call}}
    assert found.patch["spec"]["template"]["metadata"] == {"annotations": {GATE_TOKEN: TOKEN}}
    again = gate_patch(on_host({"httpGet": call}, annotation=TOKEN, terminationGracePeriodSeconds=60), "f" * 32)
    assert again.patch == {}, "a token that stands is kept"


def test_on_the_nodes_network_a_gate_without_host_is_none_and_a_pod_without_ports_gets_none():
    assert list(containers_of(gate_patch(on_host({"httpGet": gate("web")}), TOKEN))) == ["web"]
    with pytest.raises(CannotBeGated, match="declare no port"):
        gate_patch(on_host(None, port=0), TOKEN)
