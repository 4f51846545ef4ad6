"""``tidegate lab token``: a kubeconfig that is held to rules, and what is said where there is none."""

from __future__ import annotations

import pytest
import yaml
from click.testing import CliRunner

from tidegate.cli import lab
from tidegate.lab.folder import LabFolder, LabRecord

ALICE = {"name": "alice", "token": "lab-alice", "rules": ["get:pods in demo", "patch:pods"]}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """``run(*arguments)`` with a lab that has one token, alice's; what was registered is in ``run.asked``."""
    monkeypatch.setenv("TIDEGATE_STATE", str(tmp_path))
    folder = LabFolder("default")
    folder.path.mkdir(parents=True)
    asked = []

    async def registered(record, user, rules, namespace):
        asked.append((user, rules, namespace))
        return [ALICE]

    monkeypatch.setattr(
        lab, "running_lab", lambda name: (folder, LabRecord(name, 1, "http://127.16.0.1:6443", 16, 3, ""))
    )
    monkeypatch.setattr(lab, "_registered", registered)

    def invoke(*arguments):
        return CliRunner().invoke(lab.token, arguments)

    invoke.asked = asked
    return invoke


def test_it_prints_a_kubeconfig_that_tokens_and_kubectl_are_held_to(run):
    answer = run("alice", "--rule", "get:pods", "--rule", "patch:pods", "-n", "demo")
    config = yaml.safe_load(answer.output)
    assert run.asked == [("alice", ("get:pods", "patch:pods"), "demo")]
    assert config["users"] == [{"name": "tidegate-default-alice", "user": {"token": "lab-alice", "as": "alice"}}]
    assert config["clusters"][0]["cluster"] == {"server": "http://127.16.0.1:6443"}


def test_the_path_is_of_a_file_that_only_its_user_reads(run):
    answer = run("alice", "--path")
    path = LabFolder("default").kubeconfig_of("alice")
    assert answer.output == f"{path}\n"
    assert path.stat().st_mode & 0o077 == 0
    assert not LabFolder("default").kubeconfig.exists()


def test_without_a_name_it_lists(run):
    assert run().output == "alice  get:pods in demo; patch:pods\n"


def test_a_token_that_has_no_rule_yet_is_not_invented(run):
    answer = run("bob")
    assert answer.exit_code == 1
    assert 'lab "default" has no token "bob"; give it a --rule' in answer.output


def test_rules_without_a_name_are_refused(run):
    answer = run("--rule", "get:pods")
    assert (answer.exit_code, run.asked) == (2, [])
