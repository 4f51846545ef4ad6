"""The command drain: what it prints, and what it exits with."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from click.testing import CliRunner
from stage import NS, deployment, first, play

from tidegate.cli import mutate
from tidegate.cli.agent import agent
from tidegate.cli.drain import drain
from tidegate.cli.main import tidegate
from tidegate.cli.mutate import exit_code
from tidegate.client import VerbOptions
from tidegate.client.targets import Targets
from tidegate.kube.api import PODS
from tidegate.kube.errors import KubeError
from tidegate.kube.kubeconfig import Cluster
from tidegate.model.names import DrainResult, Ending

CLUSTER = Cluster("http://127.16.0.1:6443", "lab", NS)
GIVEN = {"dry_run": False, "yes": True, "output": "text"}
UNGATED = deployment(gate=False)


def run(*words, **options):
    return CliRunner().invoke(tidegate, list(words), **options)


@pytest.mark.parametrize(
    ("result", "code"),
    [("verified", 0), ("refused", 3), ("assumed", 4), ("timed-out", 4), ("bypassed", 4), ("forced", 4)],
)
def test_exit_codes_are_the_contract(result, code):
    assert exit_code(DrainResult(Ending(result))) == code


@pytest.mark.parametrize(
    "words",
    [
        ["drain"],
        ["drain", "echo-1"],
        ["drain", "svc/echo"],
        ["drain", "pod/Not_A_Name"],
        ["drain", "pod/x", "--timeout", "soon"],
        ["drain", "pod/x", "--on-deadline", "pray"],
        ["agent", "boss"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words):
    answer = run(*words)
    assert answer.exit_code == 2
    assert "Error" in answer.output


def test_a_kubeconfig_that_is_not_there_is_named():
    answer = run("drain", "pod/x", "--kubeconfig", "/nowhere/config")
    assert isinstance(answer.exception, KubeError)
    assert "/nowhere/config" in str(answer.exception)


def test_an_agent_without_its_environment_says_what_is_missing():
    answer = CliRunner().invoke(agent, [], env={"TIDEGATE_NODE_ADDRESS": "127.0.0.1"})
    assert answer.exit_code == 2
    assert "TIDEGATE_NODE is not set" in answer.output


@pytest.mark.parametrize("command", [drain, agent])
def test_every_command_explains_itself(command):
    answer = CliRunner().invoke(command, ["--help"])
    assert answer.exit_code == 0
    assert len(answer.output.splitlines()) > 5


def drained(capsys, given=GIVEN, options=VerbOptions(seed=0), prepare=None):
    """Run the command's coroutine against a virtual lab: (result, stderr lines)."""

    async def story(stage):
        name = await first(stage)
        if prepare is not None:
            await prepare(stage, name)
        return name, *await mutate._run(CLUSTER, mutate.deed("drain", Targets(NS, (name,)), options), given)

    name, (document,), (code,) = play(story, UNGATED)
    return name, document, code, capsys.readouterr().err.splitlines()


def test_the_plan_begins_with_context_server_and_namespace(capsys):
    name, document, code, told = drained(capsys)
    assert told[0] == f"context lab, server {CLUSTER.server}, namespace {NS}"
    assert told[1].startswith(f"drain pod/{name} on node-")
    assert "1. isolate: set pod-template-hash=tidegate-isolated" in told[2]
    assert "3. cut: set app=tidegate-cut" in told[4]
    assert (code, document["result"]) == (0, "verified")


def test_every_state_is_told_with_what_it_waits_for(capsys):
    _, _, _, told = drained(capsys)
    states = [state for state, _ in itertools.groupby(line.split()[2] for line in told if " s  " in line)]
    assert states[:5] == ["serving", "cut", "clean", "fenced", "unrouted"]
    assert states[-1] == "drained"
    assert any("waiting for node-1 pending" in line for line in told)
    assert any("has 2 of 3 ready pods" in line for line in told)


def test_a_dry_run_prints_the_plan_and_changes_nothing(capsys):
    _, document, code, told = drained(capsys, given=GIVEN | {"dry_run": True})
    assert code == 0 and document["labels"] == {"app": "tidegate-cut", "pod-template-hash": "tidegate-isolated"}
    assert not any(" s  " in line for line in told)


def test_a_refusal_names_the_service_and_the_floor(capsys):
    _, _, code, told = drained(capsys, options=VerbOptions(floor=4, seed=0))
    assert code == 3
    assert any("refused: demo/echo would keep 2 other ready endpoints" in line for line in told)


def test_the_json_document_has_the_contracts_keys(capsys):
    _, document, _, _ = drained(capsys)
    assert sorted(document) == [
        "epoch", "namespace", "pod", "reason", "result", "seconds", "stragglers", "verb",
    ]  # fmt: skip
    late = DrainResult(Ending.TIMED_OUT, "late", ("node-2",), 7, 1.5)
    assert mutate.sentence("echo-1", late) == "pod/echo-1 timed-out after 1.5 s: late [stragglers: node-2]"


def test_a_cut_says_what_it_is_worth_what_goes_on_and_what_comes_next(capsys):
    async def story(stage):
        name = await first(stage)
        ip = (await stage.api.get(PODS, name, NS))["status"]["podIP"]
        keep = await asyncio.open_connection(ip, 8080, local_addr=("127.16.0.11", 0))
        options = VerbOptions(seed=0, timeout_seconds=60)
        await mutate._run(CLUSTER, mutate.deed("cut", Targets(NS, (name,)), options), GIVEN)
        keep[1].close()
        await asyncio.sleep(1)
        await mutate._run(CLUSTER, mutate.deed("cut", Targets(NS, (name,)), options), GIVEN)
        return name

    name = play(story, UNGATED)
    first_time, again = capsys.readouterr().out.split("gives it back", 1)
    assert "no new connection can arrive through demo/echo; 1 connection in flight go" in first_time
    assert "no new connection can arrive through demo/echo; nothing is in flight" in again
    assert f"next: `tidegate restore pod/{name} -n demo`" in again


def test_a_drain_takes_the_activity_probe_from_the_command_line():
    assert "--activity PROBE" in CliRunner().invoke(drain, ["--help"]).output


def test_a_verb_that_is_interrupted_says_what_stands_and_how_to_go_on(capsys):
    async def story(stage):
        name = await first(stage)
        for node in ("node-1", "node-2", "node-3"):
            stage.fault("proxy-freeze", node, 30)
        options = VerbOptions(seed=0, timeout_seconds=60)
        running = asyncio.create_task(mutate._run(CLUSTER, mutate.deed("cut", Targets(NS, (name,)), options), GIVEN))
        await asyncio.sleep(5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return name

    name = play(story, UNGATED)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        f"pod/{name} stands at fenced, nobody is at work on it: the same command again goes on, "
        f"`tidegate restore pod/{name} -n demo` gives it back"
    )
