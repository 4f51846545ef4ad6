"""``tidegate ledger``: the table, the story of one pod, and what it says of what it could not read."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from click.testing import CliRunner
from stage import NS, deployment, first, other_node, play

from tidegate.cli import ledger as command
from tidegate.cli.main import tidegate
from tidegate.client import VerbOptions, drain_pod
from tidegate.client.ledger import Wanted
from tidegate.client.options import Identity
from tidegate.drain.ledger import Entry
from tidegate.engine.ledger import Ledger
from tidegate.kube.client import KubeClient
from tidegate.kube.kubeconfig import Cluster

CLUSTER = Cluster("http://127.16.0.1:6443", "lab", NS)


@pytest.fixture
def path(tmp_path, monkeypatch):
    found = tmp_path / "ledger.jsonl"
    monkeypatch.setenv("TIDEGATE_LEDGER", str(found))
    return found


def plain(text):
    """Without what another lab would call otherwise, and without instants: those are another test's."""
    text = re.sub(r"\becho-[a-z0-9]{9,10}-[a-z0-9]{5}\b", "echo-POD", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z", "INSTANT", text)
    text = re.sub(r"\b[0-9a-f]{16}\b", "DIGEST", text)
    text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "UID", text)
    text = re.sub(r"generation \d+", "generation G", text)
    text = re.sub(r"fence \d+", "fence N", re.sub(r"main/\d+", "main/N", text))
    text = re.sub(r" *\d+\.\d{3} s", " T s", text)
    return re.sub(r"  \d+\.\d  ", "  T  ", text)


def test_the_story_of_a_straggler_reads_as_one(golden, path):
    async def story(stage):
        name = await first(stage)
        late = await other_node(stage, name)
        stage.fault("proxy-freeze", late, 20)
        chosen = {"seed": 0, "replace": False, "identity": Identity("ann@desk", "one"), "reason": "disk full"}
        kept = Ledger(str(path))
        client = KubeClient(stage.lab.lab.exchange, CLUSTER.server)
        await drain_pod(client, NS, name, VerbOptions(timeout_seconds=5.0, ledger=kept, **chosen))
        await asyncio.sleep(20)
        await drain_pod(client, NS, name, VerbOptions(ledger=kept, **chosen))
        found = await command._find(CLUSTER, "", Wanted(NS))
        return [command.rendered(found, one) for one in ("table", "wide")], command.rendered(found, "table", True)

    tables, told = play(story, deployment(gate=False))
    shown = [re.sub(r"  +", "  ", plain(text)) for text in tables]
    golden("cli/ledger.txt", "\n\n".join([*shown, re.sub(r"(?m)^(\s*)(?=T s )", "  ", plain(told))]) + "\n")


def test_a_gates_drain_is_read_from_the_agents_without_a_file(path):
    async def story(stage):
        name = await first(stage)
        await stage.end(name)
        return name, command.rendered(await command._find(CLUSTER, "", Wanted(NS, name)), "json")

    name, text = play(story)
    document = json.loads(text)
    [item] = document["items"]
    assert (item["pod"], item["verb"], item["result"], document["notes"]) == (name, "gate", "verified", [])
    assert {one["observer"] for one in item["answers"]} == {"node-1", "node-2", "node-3"}


def test_entries_of_another_cluster_are_left_out_and_said_to_be(path):
    Ledger(str(path)).write(Entry(id="a", cluster="https://other", pod="echo-1", namespace=NS, verb="cut"))

    async def story(stage):
        return await command._find(CLUSTER, "", Wanted(NS))

    found = play(story)
    assert found.entries == ()
    assert "of other clusters: 1;" in found.notes[0] and str(path) in found.notes[0]


def test_an_agent_that_keeps_none_is_named(path):
    async def story(stage):
        stage.kill("tidegate-agent-node-2/agent")
        return await command._find(CLUSTER, "", Wanted(NS))

    assert any(note.startswith("node node-2: ") for note in play(story).notes)


def run(*arguments):
    return CliRunner().invoke(tidegate, ["ledger", *arguments])


def test_a_file_is_read_without_any_cluster(path):
    ledger = Ledger(str(path))
    ledger.write(
        Entry(id="a", at="2026-01-01T00:00:00.000Z", pod="echo-1", namespace=NS, verb="cut", result="verified")
    )
    path.write_bytes(path.read_bytes() + b"{broken\n")
    answer = run("--file", str(path))
    assert answer.exit_code == 0
    assert "demo/echo-1" in answer.output and "no entries: 1" in answer.stderr
    assert "nothing was retired" in run("--file", str(path), "--since", "1h").output
    assert "nothing was retired" in run("pod/other", "--file", str(path)).output


def test_without_a_kubeconfig_this_machines_own_is_shown_and_that_is_said(path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    assert run().exit_code == 1, "there is nothing at all to show"
    Ledger(str(path)).write(Entry(id="a", at="2026-01-01T00:00:00.000Z", pod="echo-1", namespace=NS, verb="cut"))
    answer = run()
    assert answer.exit_code == 0 and "demo/echo-1" in answer.stdout
    assert "no node can be asked" in answer.stderr and "/nonexistent" in answer.stderr


def test_a_file_that_is_not_there_is_an_error_in_a_line(tmp_path):
    answer = run("--file", str(tmp_path / "none"))
    assert isinstance(answer.exception, FileNotFoundError), "main() makes a line of it"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TIDEGATE_LEDGER": ""}, ""),
        ({"TIDEGATE_LEDGER": "/a/b.jsonl"}, "/a/b.jsonl"),
        ({"TIDEGATE_STATE": "/state"}, "/state/ledger.jsonl"),
        ({"XDG_STATE_HOME": "/xdg"}, "/xdg/tidegate/ledger.jsonl"),
        ({"HOME": "/home/ann"}, "/home/ann/.local/state/tidegate/ledger.jsonl"),
    ],
)
def test_where_it_is_kept(monkeypatch, environment, expected):
    for name in ("TIDEGATE_LEDGER", "TIDEGATE_STATE", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert command.default_path() == expected
