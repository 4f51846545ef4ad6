"""A node is cordoned and emptied, each pod verified, within floors and budgets, hindering nobody else's delete."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from click.testing import CliRunner
from stage import NS, deployment, play
from under_load import Load, reserved

from tidegate.cli import drain_node as command
from tidegate.cli.main import tidegate
from tidegate.client import VerbOptions
from tidegate.client.node import drain_node, plan_node
from tidegate.client.options import Identity
from tidegate.kube.api import DEPLOYMENTS, NODES, PODDISRUPTIONBUDGETS, PODS, SERVICES, Deletion, Patch, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.kubeconfig import Cluster
from tidegate.model.names import CORDONED, Ending

NODE = "node-3"
OPTIONS = VerbOptions(seed=0)
UNGATED = deployment(replicas=6, gate=False)
CLUSTER = Cluster("http://127.16.0.1:6443", "lab", NS)
GIVEN = {"dry_run": False, "yes": True, "output": "text", "parallel": 4}


async def on_node(stage, name=NODE, namespace=NS):
    found = (await stage.api.list(PODS, Selection(namespace, fields=f"spec.nodeName={name}"))).items
    return sorted(one["metadata"]["name"] for one in found)


async def node(stage, name=NODE):
    return await stage.api.get(NODES, name)


async def drained(stage, options=OPTIONS, client=None, **more):
    client = client or stage.client
    return await drain_node(client, await plan_node(client, NODE, options), options, **more)


def named(manifest, name):
    """Another Deployment and its Service, by the same template."""
    made = {**manifest, "metadata": {**manifest["metadata"], "name": name}}
    spec = {**manifest["spec"], "selector": {"matchLabels": {"app": name}}}
    spec["template"] = {**spec["template"], "metadata": {"labels": {"app": name}}}
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NS},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 8080, "targetPort": 8080}]},
    }  # fmt: skip
    return made | {"spec": spec}, service


def bare(name, node_name=NODE, **spec):
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NS, "labels": {"app": name}},
        "spec": {"nodeName": node_name, "containers": [{"name": "a", "image": "tidegate/echo:v1"}], **spec},
    }  # fmt: skip


def budget(minimum):
    return {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "all", "namespace": NS},
        "spec": {"minAvailable": minimum, "selector": {"matchLabels": {"app": "echo"}}},
    }  # fmt: skip


def test_a_node_with_pods_of_three_services_is_emptied_under_load_without_a_lost_request():
    async def story(stage):
        for name in ("two", "three"):
            made, service = named(deployment(replicas=5, gate=False), name)
            await stage.api.create(SERVICES, service)
            await stage.api.create(DEPLOYMENTS, made)
        await stage.ready(16)
        before = await on_node(stage)
        assert {name.split("-")[0] for name in before} == {"echo", "two", "three"}
        async with Load(stage).running(), Load(stage, "two").running(), Load(stage, "three").running():
            result = await drained(stage)
        assert {one.result for one in result.results.values()} == {Ending.VERIFIED}
        assert len(result.results) == len(before)
        assert await on_node(stage) == []
        assert all("tidegate-system" in name for name in result.left)
        assert (await node(stage))["spec"]["unschedulable"]
        assert CORDONED in (await node(stage))["metadata"]["annotations"]
        for name in ("echo", "two", "three"):
            assert await reserved(stage, name) == {}

    play(story, UNGATED)


def test_a_node_that_was_cordoned_before_is_left_as_it_is():
    async def story(stage):
        await stage.api.patch(NODES, NODE, Patch({"spec": {"unschedulable": True}}))
        result = await drained(stage)
        assert not result.is_cordoned_by_us
        assert CORDONED not in ((await node(stage))["metadata"].get("annotations") or {})

    play(story, UNGATED)


def test_a_pod_that_nothing_owns_refuses_the_whole_drain_and_force_takes_it():
    async def story(stage):
        await stage.api.create(PODS, bare("alone"))
        await asyncio.sleep(3)
        result = await drained(stage)
        assert result.results == {} and "declares no controller" in result.left[f"{NS}/alone"]
        assert not (await node(stage))["spec"].get("unschedulable")
        result = await drained(stage, VerbOptions(seed=0, force=True))
        assert f"{NS}/alone" in result.results
        assert await on_node(stage) == []

    play(story, UNGATED)


def test_what_an_empty_dir_holds_is_noted_and_finished_pods_are_left():
    async def story(stage):
        await stage.api.create(PODS, bare("scratch", volumes=[{"name": "tmp", "emptyDir": {}}]))
        await stage.api.create(PODS, bare("mirror"))
        await stage.api.patch(
            PODS, "mirror", Patch({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}), NS
        )
        await asyncio.sleep(3)
        plan = await plan_node(stage.client, NODE, VerbOptions(seed=0, force=True))
        by_name = {one.pod.name: one for one in plan.pods}
        assert "tmp" in by_name["scratch"].notes[0]
        assert by_name["mirror"].fate == "skip"

    play(story, UNGATED)


def test_a_budget_that_allows_nothing_is_waited_for_and_never_passed_by():
    async def story(stage):
        await stage.api.create(PODDISRUPTIONBUDGETS, budget(6))
        await asyncio.sleep(1)
        options = VerbOptions(seed=0, replace=False, timeout_seconds=20, force=True)
        before = await on_node(stage)
        running = asyncio.create_task(drained(stage, options))
        await asyncio.sleep(8)
        assert await on_node(stage) == before
        await stage.api.delete(PODDISRUPTIONBUDGETS, "all", NS, Deletion())
        result = await running
        assert {one.result for one in result.results.values()} == {Ending.VERIFIED}

    play(story, UNGATED)


def test_a_budget_that_never_allows_it_leaves_the_pods_and_says_so():
    async def story(stage):
        await stage.api.create(PODDISRUPTIONBUDGETS, budget(6))
        await asyncio.sleep(1)
        before = await on_node(stage)
        result = await drained(stage, VerbOptions(seed=0, replace=False, timeout_seconds=6))
        assert {one.result for one in result.results.values()} == {Ending.REFUSED}
        assert await on_node(stage) == before
        assert all(
            "PodDisruptionBudget all" in result.left[f"{NS}/{name}"]
            or "disruption budget all" in result.left[f"{NS}/{name}"]
            for name in before
        )

    play(story, UNGATED)


def test_a_budget_is_met_by_the_replacement():
    async def story(stage):
        await stage.api.create(PODDISRUPTIONBUDGETS, budget(6))
        await asyncio.sleep(1)
        result = await drained(stage)
        assert {one.result for one in result.results.values()} == {Ending.VERIFIED}
        assert await on_node(stage) == []

    play(story, UNGATED)


@pytest.mark.parametrize("gate", [True, False])
def test_a_pod_that_somebody_else_deletes_is_waited_for_and_its_gate_has_the_last_word(gate):
    async def story(stage):
        mine = (await on_node(stage))[0]
        stage.fault("proxy-freeze", "node-1", 6)
        running = asyncio.create_task(drained(stage))
        await asyncio.sleep(0.3)
        await stage.delete(mine)
        result = (await running).results[f"{NS}/{mine}"]
        assert "another's hand" in result.reason
        assert result.result is (Ending.VERIFIED if gate else Ending.BYPASSED), result

    play(story, deployment(replicas=6, gate=gate))


def test_the_command_prints_each_pod_and_what_is_left(capsys):
    async def story(stage):
        return await command.drained(CLUSTER, NODE, OPTIONS, GIVEN)

    document, code = play(story, UNGATED)
    told = capsys.readouterr()
    assert code == 0
    assert document["node"] == NODE and document["cordoned"]
    assert all(one["result"] == "verified" for one in document["items"])
    assert "kubectl uncordon node-3" in told.out
    assert "drain node/node-3: cordon it" in told.err
    assert "without it nothing here is verified" in told.err


def test_a_dry_run_of_a_node_changes_nothing(capsys):
    async def story(stage):
        document, code = await command.drained(CLUSTER, NODE, OPTIONS, GIVEN | {"dry_run": True})
        assert code == 0 and document["items"]
        assert not (await node(stage))["spec"].get("unschedulable")

    play(story, UNGATED)
    assert "isolate: set" in capsys.readouterr().err


class Mortal:
    """An API that answers nothing after its ``last`` write."""

    def __init__(self, exchange, last):
        self.exchange, self.last, self.count = exchange, last, 0
        self.died = asyncio.Event()

    async def __call__(self, request):
        if self.died.is_set():
            await asyncio.get_running_loop().create_future()
        answer = await self.exchange(request)
        self.count += request.method in ("PATCH", "DELETE")
        if self.count >= self.last:
            self.died.set()
        return answer


@pytest.mark.parametrize("last", [1, 2, 3, 5, 8, 12, 17, 23, 30, 36])
def test_a_node_drain_killed_after_any_write_is_finished_by_the_next_run(last):
    async def story(stage):
        mortal = Mortal(stage.lab.lab.exchange, last)
        killed = VerbOptions(seed=0, identity=Identity("ann@desk", "killed"))
        running = asyncio.create_task(drained(stage, killed, KubeClient(mortal, "lab")))
        await mortal.died.wait()
        await asyncio.sleep(1)
        assert not running.done()
        result = await drained(stage, VerbOptions(seed=1, identity=Identity("ann@desk", "next", lambda holder: False)))
        assert {one.result for one in result.results.values()} <= {Ending.VERIFIED}
        assert await on_node(stage) == []
        assert len(await stage.pods()) == 6
        assert await reserved(stage) == {}
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(asyncio.sleep(0)), 1)

    play(story, UNGATED)


def test_a_ctrl_c_leaves_the_node_cordoned_and_says_how_to_uncordon(monkeypatch, tmp_path):
    def interrupted(coroutine):
        coroutine.close()
        raise KeyboardInterrupt

    config = tmp_path / "config"
    config.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n"
        "clusters: [{name: lab, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: lab, user: {}}]\n"
        "contexts: [{name: lab, context: {cluster: lab, user: lab}}]\n"
    )
    monkeypatch.setattr(command.asyncio, "run", interrupted)
    answer = CliRunner().invoke(tidegate, ["drain", "node/node-3", "--kubeconfig", str(config)])
    assert answer.exit_code == 130
    assert "`kubectl uncordon node-3`" in answer.output


@pytest.mark.parametrize("words", [["node/a", "node/b"], ["node/a", "pod/b"], ["node/a", "--count", "2"]])
def test_a_node_is_drained_alone_and_whole(words):
    answer = CliRunner().invoke(tidegate, ["drain", *words])
    assert answer.exit_code == 2
    assert "one node at a time" in answer.output
