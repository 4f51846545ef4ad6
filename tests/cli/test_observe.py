"""``tidegate observe``: its table, its verdict, and an end that comes early."""

from __future__ import annotations

import asyncio
import json
import re

from click.testing import CliRunner
from stage import NS, deployment, play

from tidegate.cli import observe as command
from tidegate.cli.main import tidegate
from tidegate.client.observe import Observation, Subject
from tidegate.kube.api import DEPLOYMENTS, Patch
from tidegate.kube.kubeconfig import Cluster
from tidegate.vtime import now

CLUSTER = Cluster("http://127.16.0.1:6443", "lab", NS)
RESTART = {"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}}


def plain(text):
    text = re.sub(r"\becho-[a-z0-9]{9,10}-[a-z0-9]{5}\b", "echo-POD", text)
    return re.sub(r"\d\d:\d\d:\d\d", "INSTANT", text)


def told(story_of, manifest=None, **options):
    async def story(stage):
        watching = asyncio.create_task(command._observe(CLUSTER, Subject(NS, "deploy", "echo"), 30.0, True))
        await asyncio.sleep(2)
        await story_of(stage)
        await stage.api.patch(DEPLOYMENTS, "echo", Patch(RESTART), NS)
        return await watching

    return play(story, manifest or deployment(gate=False), **options)


async def nothing(stage):
    return


async def lagging(stage):
    stage.fault("proxy-lag", "node-2", 8)


def test_what_it_says_of_a_rollout_reads_as_a_story(golden, capsys):
    shown = []
    for title, before, manifest, options in (
        ("plain", nothing, None, {}),
        ("plain, and the proxy of node-2 lags by 8 s", lagging, None, {}),
        ("gated", nothing, deployment(), {}),
        ("plain, without agents", nothing, None, {"addons": ()}),
    ):
        found = told(before, manifest, **options)
        said = capsys.readouterr()
        shown.append(plain(f"# {title}\n{said.err}{command.rendered(found, 'table')}\n"))
    golden("cli/observe.txt", "\n".join(shown))


def test_nobody_left():
    empty = Observation(Subject(NS), now())
    assert command.rendered(empty, "table") == "no pod left while it was watched"
    assert json.loads(command.rendered(empty, "json"))["pods"] == []


def test_a_ctrl_c_ends_it_with_what_was_seen(monkeypatch):
    pressed = []

    async def story(stage):
        loop = type(asyncio.get_running_loop())
        monkeypatch.setattr(loop, "add_signal_handler", lambda self, number, act: pressed.append(act), raising=False)
        monkeypatch.setattr(loop, "remove_signal_handler", lambda self, number: True, raising=False)
        watching = asyncio.create_task(command._observe(CLUSTER, Subject(NS), 300.0, True))
        await asyncio.sleep(2)
        await stage.api.patch(DEPLOYMENTS, "echo", Patch(RESTART), NS)
        await asyncio.sleep(20)
        pressed[-1]()
        return await watching

    assert len(play(story, deployment(gate=False)).exposures) == 3


def test_a_named_subject_has_one_namespace():
    answer = CliRunner().invoke(tidegate, ["observe", "svc/echo", "-A"])
    assert answer.exit_code == 2 and "leave out -A" in answer.output
