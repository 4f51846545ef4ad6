"""``tidegate install``: what it prints, as golden text, and what it refuses to begin."""

from __future__ import annotations

import re

import pytest
import yaml
from click.testing import CliRunner

from tidegate import __version__
from tidegate.cli import install as command
from tidegate.cli.main import tidegate
from tidegate.cli.parts import PARTS
from tidegate.kube.kubeconfig import Cluster

CLUSTER = Cluster("https://192.0.2.9:6443", "shop", "shop")


def run(*words):
    return CliRunner().invoke(tidegate, ["install", *words])


def documents(text):
    return [one for one in yaml.safe_load_all(text) if one]


def masked(text):
    return text.replace(__version__, "VERSION")


def test_all_of_it_is_golden(golden):
    answer = run("--print", "--only", ",".join(one for one in PARTS if one != "crds"))
    assert answer.exit_code == 0, answer.output
    golden("cli/install.yaml", masked(answer.stdout))


def test_our_kinds_come_before_all_that_uses_them():
    kinds = [one["kind"] for one in documents(run("--print").stdout)]
    assert (
        kinds[:4] == ["Namespace", *["CustomResourceDefinition"] * 3] and kinds.count("CustomResourceDefinition") == 3
    )
    alone = documents(run("--print", "--only", "crds").stdout)
    assert [one["metadata"]["name"] for one in alone[1:]] == [
        "drains.tidegate.dev", "observers.tidegate.dev", "releases.tidegate.dev"
    ]  # fmt: skip


def test_what_takes_it_away_is_golden(golden):
    golden("cli/uninstall.sh", masked(run("--print", "--uninstall").stdout))


def test_chosen_parts_image_and_networks_are_in_the_yaml():
    answer = run("--print", "--only", "agent,fence", "--image", "r.example/tg:7", "--pod-cidr", "10.9.0.0/16,fd00::/64")
    found = documents(answer.stdout)
    assert [one["kind"] for one in found[:2]] == ["Namespace", "Service"]
    assert "Deployment" not in {one["kind"] for one in found} and "tidegate-drain" not in answer.stdout
    agent = next(one for one in found if one["metadata"]["name"] == "tidegate-agent" and one["kind"] == "DaemonSet")
    [container] = agent["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "r.example/tg:7"
    assert {"name": "TIDEGATE_POD_NETWORKS", "value": "10.9.0.0/16,fd00::/64"} in container["env"]


def test_what_is_uninstalled_is_what_was_installed():
    namespaced, whole = [], []
    for one in documents(run("--print").stdout):
        own = one["metadata"].get("namespace")
        (namespaced if own else whole).append(f"{one['kind'].lower()}/{one['metadata']['name']}")
    script = run("--print", "--uninstall").stdout
    deleted = re.findall(r"kubectl delete --ignore-not-found (.*)", script)
    assert sorted([*" ".join(deleted).split(), "namespace/tidegate-system"]) == sorted(whole)
    assert deleted[0] == "mutatingwebhookconfiguration/tidegate", "no new pod gets a gate that nobody will hold"
    assert set(deleted[-1].split()) == {one for one in whole if one.startswith("customresourcedefinition/")}
    assert script.index("delete deployment tidegate-operator") < script.index("delete daemonset tidegate-agent")
    assert script.index("delete daemonset tidegate-agent") < script.index("nft delete table inet tidegate")
    assert script.index("nft delete table inet tidegate") < script.index("delete namespace tidegate-system")
    [swept] = re.findall(r"<<'END'\n(.*?)END\n", script, re.S)
    assert yaml.safe_load(swept)["metadata"]["name"] == "tidegate-sweep"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "--image is missing: no image is published"),
        (["--uninstall"], "add --print (to take it away: `tidegate uninstall`)"),
        (["--gate", "deploy/web"], "add --print"),
        (["--image", "x", "-n", "elsewhere"], "it cannot be chosen"),
        (["--print", "-n", "elsewhere"], "the namespace is tidegate-system"),
        (["--print", "--only", "hooks"], "parts are crds, agent, coordinator, fence, operator, webhook, users"),
        (["--print", "--only", ","], "no part is named"),
        (["--print", "--pod-cidr", "10.9.0.1/16"], "has host bits set"),
        (["--print", "--gate", "pod/x"], "is not deploy/NAME"),
    ],
)
def test_wrong_usage_says_what_would_be_right(words, why):
    answer = run(*words)
    assert answer.exit_code == 2
    assert why in answer.output
    assert "apiVersion" not in answer.output


@pytest.fixture
def gate_of(monkeypatch):
    """``gate_of(pod_spec)``: the command's answer about deploy/web with this template."""

    def ask(pod_spec, *words):
        async def read(cluster, kind, namespace, name):
            assert (kind, namespace, name) == ("deploy", "shop", "web")
            return {"spec": {"template": {"spec": pod_spec}}}

        monkeypatch.setattr(command, "_read", read)
        monkeypatch.setattr("tidegate.kube.kubeconfig.load", lambda path, context: CLUSTER)
        return run("--print", "--gate", "deploy/web", *words)

    return ask


def test_a_gate_is_a_patch_with_the_command_that_applies_it(gate_of, golden):
    answer = gate_of({"containers": [{"name": "app", "lifecycle": {"preStop": {"sleep": {"seconds": 15}}}}]})
    assert answer.exit_code == 0
    golden("cli/gate.yaml", answer.stdout)
    assert "kubectl -n shop patch deploy web --patch-file gate.yaml" in answer.stdout


def test_on_the_nodes_network_the_condition_is_told_and_each_workload_has_a_token_of_its_own(gate_of):
    spec = {"hostNetwork": True, "containers": [{"name": "app", "ports": [{"containerPort": 8080}]}]}
    answers = [gate_of(spec) for _ in range(2)]
    tokens = {re.search(r"tidegate.dev/gate-token: '?([0-9a-f]{32})", one.stdout)[1] for one in answers}
    assert len(tokens) == 2
    assert "Security takes a hook that names a host at level privileged only" in re.sub(r"\n# ", " ", answers[0].stdout)


def test_a_hook_of_its_own_is_refused_and_nothing_is_printed(gate_of):
    answer = gate_of({"containers": [{"name": "app", "lifecycle": {"preStop": {"exec": {"command": ["quit"]}}}}]})
    assert (answer.exit_code, answer.stdout) == (3, "")
    assert "container app has a preStop hook of its own" in answer.stderr


def test_a_gate_that_is_there_is_said_and_nothing_is_printed(gate_of):
    hook = {"httpGet": {"path": "/gate/app", "port": 15299}}
    pod = {"terminationGracePeriodSeconds": 60, "containers": [{"name": "app", "lifecycle": {"preStop": hook}}]}
    answer = gate_of(pod)
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert "has its gate already" in answer.stderr
