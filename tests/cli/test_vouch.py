"""vouch as a user reads it: plan, refusals, what stands on the node, its document."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from stage import NS, play

from tidegate.cli.main import tidegate
from tidegate.cli.vouch import vouched
from tidegate.client.vouch import Vouching
from tidegate.kube.api import NODES, PODS
from tidegate.kube.errors import ApiError
from tidegate.kube.kubeconfig import Cluster
from tidegate.model.names import SYSTEM_NAMESPACE, VOUCHED

CLUSTER = Cluster("http://127.16.0.1:6443", "lab", NS)
GIVEN = {"dry_run": False, "yes": True, "output": "text"}
DOCS = (Path(__file__).parents[2] / "docs" / "json.md").read_text("utf-8")


async def gone(stage):
    """node-3 has neither kubelet nor agent."""
    [task] = [one for one in asyncio.all_tasks() if one.get_name() == "kubelet node-3"]
    task.cancel()
    stage.kill("tidegate-agent-node-3/agent")
    await asyncio.sleep(60)


def test_a_live_node_is_refused_and_nothing_is_written(capsys):
    async def story(stage):
        document, code = await vouched(CLUSTER, "node-3", Vouching("dead", "ann@desk", "burnt"), GIVEN)
        return document, code, (await stage.api.get(NODES, "node-3"))["metadata"].get("annotations") or {}

    document, code, annotations = play(story)
    assert (code, document["changed"], VOUCHED in annotations) == (3, False, False)
    told = capsys.readouterr().err
    assert "refused: node-3 is Ready: its kubelet lives" in told
    assert "refused: the agent of node-3 answers" in told


def test_a_node_whose_agent_was_only_taken_away_may_be_called_agentless_and_not_dead():
    async def story(stage):
        await stage.api.delete(PODS, "tidegate-agent-node-3", SYSTEM_NAMESPACE)
        await asyncio.sleep(3)
        _, dead = await vouched(CLUSTER, "node-3", Vouching("dead", "ann@desk", "burnt"), GIVEN)
        _, agentless = await vouched(CLUSTER, "node-3", Vouching("no-agent", "ann@desk", "serverless"), GIVEN)
        return dead, agentless

    assert play(story) == (3, 0)


def test_it_stands_on_the_node_until_it_is_withdrawn_and_the_document_is_as_listed(capsys):
    async def story(stage):
        await gone(stage)
        word = Vouching("dead", "ann@desk", "power supply burnt", 3600.0)
        dry, _ = await vouched(CLUSTER, "node-3", word, GIVEN | {"dry_run": True})
        before = (await stage.api.get(NODES, "node-3"))["metadata"].get("annotations") or {}
        said, code = await vouched(CLUSTER, "node-3", word, GIVEN)
        stands = json.loads((await stage.api.get(NODES, "node-3"))["metadata"]["annotations"][VOUCHED])
        back = Vouching("withdraw", "bob@sofa")
        taken, _ = await vouched(CLUSTER, "node-3", back, GIVEN)
        again, _ = await vouched(CLUSTER, "node-3", back, GIVEN)
        return dry, before, said, code, stands, taken, again

    dry, before, said, code, stands, taken, again = play(story)
    assert (dry["changed"], VOUCHED in before, said["changed"], code) == (False, False, True, 0)
    assert (stands["says"], stands["by"], stands["reason"]) == ("dead", "ann@desk", "power supply burnt")
    assert stands["until"] == said["until"] > stands["at"]
    assert (taken["changed"], again["changed"]) == (True, False)
    told = capsys.readouterr()
    assert "if node-3 forwards after all, what enters the cluster there reaches pods that have ended" in told.err
    assert "note: ann@desk said dead at" in told.err
    assert "node/node-3 is vouched for as dead by ann@desk until 2026-" in told.out
    assert "node/node-3 was not vouched for: unchanged" in told.out
    section = DOCS.split("## tidegate vouch\n", 1)[1].split("\n## ", 1)[0]
    keys = {key.rstrip("[]").rstrip("?") for key in re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)}
    assert keys == set(said)


def test_a_node_that_is_another_one_since_it_was_looked_at_is_not_written_to(monkeypatch):
    from tidegate.client import vouch

    async def story(stage):
        await gone(stage)
        plan = await vouch.plan_vouch(stage.client, "node-3", Vouching("dead", "ann@desk", "burnt"))
        await stage.api.delete(NODES, "node-3")
        await stage.api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-3"}})
        with pytest.raises(vouch.KubeError, match="another one since"):
            await vouch.carry_out_vouch(stage.client, plan)
        with pytest.raises(ApiError):
            await vouch.plan_vouch(stage.client, "node-8", Vouching("dead", "ann@desk", "burnt"))

    play(story)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "say --dead, --no-agent or --withdraw"),
        (["--dead"], "say --reason WHY"),
        (["--dead", "--reason", "x", "--ttl", "soon"], "soon"),
    ],
)
def test_what_is_missing_is_said(words, says):
    made = CliRunner().invoke(tidegate, ["vouch", "node/x", *words])
    assert made.exit_code == 2 and says in made.output
