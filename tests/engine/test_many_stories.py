"""Several pods: in turn, the same ones after a kill, never to zero, never silently fewer."""

from __future__ import annotations

import asyncio
import random

import pytest
from stage import NS, deployment, play
from under_load import Floor, Load, reserved

from tidegate.cli import mutate
from tidegate.client import VerbOptions, drain_pod
from tidegate.client.many import mark, run_of
from tidegate.client.options import Identity
from tidegate.client.targets import Targets, TooFewPods, pods_of
from tidegate.engine.owners import KINDS
from tidegate.kube.api import PODS
from tidegate.kube.errors import ApiError
from tidegate.kube.kubeconfig import Cluster
from tidegate.model.names import Ending

UNGATED = deployment(gate=False)
DEPLOY = Targets(NS, workload=("deploy", "echo"))
GIVEN = {"dry_run": False, "yes": True, "output": "text", "keep_going": False}


def command(targets, options=VerbOptions(seed=0), **given):
    cluster = Cluster("http://127.16.0.1:6443", "lab", NS)
    return mutate._run(cluster, mutate.deed("drain", targets, options), GIVEN | given)


async def names(stage):
    return {one["metadata"]["name"] for one in await stage.pods()}


@pytest.mark.parametrize("replicas", [1, 4])
def test_a_deployment_is_drained_pod_by_pod_under_load_without_a_lost_request(replicas):
    async def story(stage):
        before, floor = await names(stage), Floor(stage)
        watching = asyncio.create_task(floor.watch())
        async with Load(stage).running():
            documents, codes = await command(DEPLOY)
        watching.cancel()
        assert codes == [0] * replicas, documents
        assert floor.least == replicas
        after = await names(stage)
        assert len(after) == replicas and not after & before
        assert await reserved(stage) == {}

    play(story, deployment(replicas=replicas, gate=False))


def test_a_run_that_was_killed_goes_on_with_the_pods_it_was_about_and_no_others():
    async def story(stage):
        before = await names(stage)
        run = await run_of(stage.api, DEPLOY)
        await mark(stage.api, run)
        # It dies after the first pod, whose replacement is not to be drained.
        await drain_pod(stage.client, NS, run.names[0], VerbOptions(seed=0))
        again = await run_of(stage.api, DEPLOY)
        assert again.is_continued
        assert set(again.names) == before - {run.names[0]}
        _, codes = await command(DEPLOY)
        assert codes == [0, 0]
        assert len(await names(stage)) == 3 and len(stage.names) == 6
        assert not (await run_of(stage.api, DEPLOY)).is_continued, "the marks went with their pods"

    play(story, UNGATED)


def test_a_run_killed_while_it_marks_its_pods_is_still_about_all_of_them():
    async def story(stage):
        run = await run_of(stage.api, DEPLOY)
        await mark(stage.api, type(run)(run.pods, run.mark, run.unmarked[:1]))
        await asyncio.sleep(2)
        await stage.scale(4)
        await stage.ready(4)
        assert set((await run_of(stage.api, DEPLOY)).names) == set(run.names), "a younger pod is none of them"

    play(story, UNGATED)


def test_a_pod_taken_from_its_owner_by_the_killed_run_is_still_of_the_workload():
    async def story(stage):
        name = min(await names(stage))
        running = asyncio.create_task(drain_pod(stage.client, NS, name, VerbOptions(seed=0)))
        await asyncio.sleep(0.6)
        running.cancel()
        assert not (await stage.api.get(PODS, name, NS))["metadata"].get("ownerReferences")
        assert name in await pods_of(stage.api, DEPLOY)

    play(story, UNGATED)


@pytest.mark.parametrize(
    ("targets", "has"),
    [(Targets(NS, selector="app=echo", count=99), "3 pods"), (Targets(NS, selector="app=no"), "no pods")],
)
def test_fewer_pods_than_asked_for_is_a_refusal_that_says_how_many_there_are(targets, has):
    async def story(stage):
        with pytest.raises(TooFewPods, match=has):
            await command(targets)

    play(story, UNGATED)


def test_an_unknown_workload_is_not_found():
    async def story(stage):
        with pytest.raises(ApiError, match="nope"):
            await command(Targets(NS, workload=("deploy", "nope")))

    play(story, UNGATED)


def test_it_stops_at_the_first_that_is_not_verified_and_says_what_was_not_begun(capsys):
    async def story(stage):
        stage.fault("proxy-freeze", "node-2", 300)
        before = await names(stage)
        _, codes = await command(DEPLOY, VerbOptions(seed=0, timeout_seconds=8))
        assert codes == [4]
        assert before <= await names(stage), "nothing was deleted"
        stage.fault("clear", "node-2")
        _, codes = await command(DEPLOY)
        assert codes == [0, 0, 0]

    play(story, UNGATED)
    assert "stopped: not begun are pod/" in capsys.readouterr().err


def test_keep_going_goes_on_after_one_that_is_not_verified():
    async def story(stage):
        stage.fault("proxy-freeze", "node-2", 300)
        _, codes = await command(DEPLOY, VerbOptions(seed=0, timeout_seconds=8, replace=False), keep_going=True)
        assert codes == [4, 3, 3], "nothing stands in for the first yet: no other is begun"

    play(story, UNGATED)


def test_of_several_that_are_named_one_that_is_gone_is_passed_over(capsys):
    async def story(stage):
        there = min(await names(stage))
        _, codes = await command(Targets(NS, (there, "gone")))
        assert codes == [0]

    play(story, UNGATED)
    assert "pod/gone: there is no such pod" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("replace", [None, False])
def test_drains_of_many_processes_at_once_never_break_the_floor(seed, replace):
    async def story(stage):
        floor, rng = Floor(stage), random.Random(seed)
        watching = asyncio.create_task(floor.watch())

        async def one(name):
            await asyncio.sleep(rng.random() * 0.01)
            options = VerbOptions(floor=2, replace=replace, seed=seed, identity=Identity("x@y", f"process {name}"))
            return await drain_pod(stage.client, NS, name, options)

        results = await asyncio.gather(*map(one, sorted(await names(stage))))
        watching.cancel()
        endings = [result.result for result in results]
        assert set(endings) <= {Ending.VERIFIED, Ending.REFUSED}
        assert floor.least >= (5 if replace is None else 2)
        assert endings.count(Ending.VERIFIED) >= (5 if replace is None else 3)
        assert await reserved(stage) == {}

    play(story, deployment(replicas=5, gate=False), seed=seed)


def owned_by(kind, replicas=3):
    """The stage's Deployment as a StatefulSet or a DaemonSet, behind the same Service."""
    made = deployment(replicas=replicas, gate=False)
    spec = {key: made["spec"][key] for key in ("selector", "template")}
    spec |= {"serviceName": "echo", "replicas": replicas} if kind == "StatefulSet" else {}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": made["metadata"], "spec": spec}


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_pods_that_have_no_second_go_one_by_one_each_once_the_one_before_is_back(kind, capsys):
    async def story(stage):
        await stage.api.create(KINDS[kind], owned_by(kind))
        await stage.ready(3)
        uids = {one["metadata"]["uid"] for one in await stage.pods()}
        floor = Floor(stage)
        watching = asyncio.create_task(floor.watch())
        async with Load(stage).running():
            _, codes = await command(Targets(NS, workload=("sts" if kind == "StatefulSet" else "ds", "echo")))
        watching.cancel()
        assert codes == [0, 0, 0]
        assert floor.least == 2
        await stage.ready(3)
        assert not uids & {one["metadata"]["uid"] for one in await stage.pods()}

    play(story, deployment(replicas=0, gate=False))
    assert f"capacity dips by one: a {'pod of a ' if kind == 'StatefulSet' else ''}{kind}" in capsys.readouterr().err


def test_the_only_pod_of_a_stateful_set_is_refused_and_its_floor_named(capsys):
    async def story(stage):
        await stage.api.create(KINDS["StatefulSet"], owned_by("StatefulSet", 1))
        await stage.ready(1)
        _, codes = await command(Targets(NS, workload=("sts", "echo")))
        assert codes == [3]

    play(story, deployment(replicas=0, gate=False))
    assert "would keep 0 other ready endpoints" in capsys.readouterr().err


def test_a_bare_pod_beside_others_is_drained_under_load_and_is_gone_for_good(capsys):
    async def story(stage):
        metadata = {"name": "alone", "namespace": NS, "labels": {"app": "echo"}}
        spec = deployment(gate=False)["spec"]["template"]["spec"]
        await stage.api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        await stage.ready(3)
        # A ReplicaSet adopts what its selector selects: this one lacks the template's hash.
        async with Load(stage).running():
            _, codes = await command(Targets(NS, ("alone",)))
        assert codes == [0]
        assert len(await stage.pods()) == 2

    play(story, deployment(replicas=2, gate=False))
    assert "nothing makes a replacement" in capsys.readouterr().err
