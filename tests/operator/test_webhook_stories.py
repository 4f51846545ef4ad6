"""The webhook in a whole lab, in virtual time: pods that it gated end verified, and while it is down nothing waits."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json

import pytest
from stage import NS, deployment, play

from tidegate.agent.operator_objects import webhook
from tidegate.client.status import status_of
from tidegate.kube.api import (
    DEPLOYMENTS,
    MUTATINGWEBHOOKCONFIGURATIONS,
    NAMESPACES,
    PODS,
    REPLICASETS,
    Patch,
    Selection,
)
from tidegate.kube.client import KubeClient
from tidegate.model import pod as pod_noun
from tidegate.model.names import REPLACE_SLEEP, UNGATED
from tidegate.operator.webhook import Webhook
from tidegate.operator.webhook_settings import WebhookSettings

HOST, PORT = "127.16.0.99", 9443
BARE = deployment(gate=False, grace=30)


@contextlib.asynccontextmanager
async def serving(stage):
    """The webhook, killed on leaving."""
    hook = Webhook(stage.api, WebhookSettings("", HOST, PORT), lambda line: None)
    running = asyncio.create_task(hook.run())
    await asyncio.sleep(0.1)
    assert hook.is_ready
    try:
        yield hook
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def configured(stage, **labels):
    """As installed, but for the address; the namespace opts in, and asks for what ``labels`` say."""
    [made] = [copy.deepcopy(one.manifest) for one in webhook() if one.manifest["kind"].startswith("Mutating")]
    for one in made["webhooks"]:
        path = one["clientConfig"]["service"]["path"]
        one["clientConfig"] = {"url": f"https://{HOST}:{PORT}{path}"}
    await stage.api.create(MUTATINGWEBHOOKCONFIGURATIONS, made)
    wanted = {"tidegate.dev/gate": "enabled", **labels}
    await stage.api.patch(NAMESPACES, NS, Patch({"metadata": {"labels": wanted}}))


async def roll(stage, word):
    """A rollout, to its end: seconds."""
    began = stage.now
    change = {"spec": {"template": {"metadata": {"annotations": {"restarted": word}}}}}
    await stage.api.patch(DEPLOYMENTS, "echo", Patch(change), NS)
    for _ in range(1200):
        await asyncio.sleep(0.1)
        found = await stage.api.get(DEPLOYMENTS, "echo", NS)
        status, wanted = found["status"], found["spec"]["replicas"]
        is_seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
        if is_seen and status.get("updatedReplicas") == status.get("availableReplicas") == wanted == status["replicas"]:
            pods = (await stage.api.list(PODS, Selection(NS))).items
            if len(pods) == wanted:
                return stage.now - began
    raise AssertionError("the rollout does not end")


async def decoded(stage):
    return [pod_noun.decode(one) for one in await stage.pods()]


@pytest.mark.parametrize("seed", range(3))
def test_pods_that_the_webhook_gated_end_verified_and_no_template_was_touched(seed):
    async def story(stage):
        async with serving(stage) as hook:
            await configured(stage)
            await roll(stage, "first")
            gated = await decoded(stage)
            assert all(one.is_gated and one.grace_seconds == 60 for one in gated)
            await roll(stage, "second")
            assert {stage.result(one.name)["result"] for one in gated} == {"verified"}
            template = (await stage.api.get(DEPLOYMENTS, "echo", NS))["spec"]["template"]["spec"]
            assert "lifecycle" not in json.dumps(template) and template["terminationGracePeriodSeconds"] == 30
            assert hook.outcomes == {"gated": 6}

    play(story, BARE, seed=seed)


def test_down_in_the_middle_of_a_rollout_nothing_waits_and_those_made_without_a_gate_are_listed():
    """S61."""

    async def story(stage):
        await configured(stage)
        async with serving(stage):
            await roll(stage, "first")
        assert all(one.is_gated for one in await decoded(stage))
        seconds = await roll(stage, "second")
        assert seconds < 60 and not any(one.gated for one in await decoded(stage))
        client = KubeClient(stage.lab.lab.exchange, "lab")
        [workload] = (await status_of(client, "deploy", NS, "echo")).document["workloads"]
        names = sorted(one.name for one in await decoded(stage))
        [listed] = workload["without_gate"]
        assert listed["pods"] == names and "no webhook gave it one" in listed["reason"]
        assert "kubectl -n demo rollout restart deployment/echo" in listed["next"]
        async with serving(stage):
            await roll(stage, "third")
        assert all(one.is_gated for one in await decoded(stage))

    play(story, BARE)


def test_one_that_answers_nothing_costs_two_seconds_a_pod_and_no_more():
    async def story(stage):
        await configured(stage)

        async def silent(reader, writer):
            await asyncio.sleep(3600)

        listening = await asyncio.start_server(silent, HOST, PORT)
        began = stage.now
        await stage.api.create(PODS, {**bare_pod("patient")})
        assert 1.9 < stage.now - began < 2.5
        listening.close()

    play(story, BARE)


def bare_pod(name, hook=None):
    spec = copy.deepcopy(BARE["spec"]["template"]["spec"])
    if hook:
        spec["containers"][0]["lifecycle"] = {"preStop": hook}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NS}, "spec": spec}


def test_a_namespace_has_its_sleeps_replaced_and_another_hook_is_kept_and_says_so():
    async def story(stage):
        async with serving(stage):
            await configured(stage, **{REPLACE_SLEEP: "true"})
            sleeper = await stage.api.create(PODS, bare_pod("sleeper", {"sleep": {"seconds": 20}}))
            assert pod_noun.decode(sleeper).is_gated
            own = await stage.api.create(PODS, bare_pod("own", {"exec": {"command": ["sh", "-c", "echo bye"]}}))
            assert not pod_noun.decode(own).is_gated
            assert own["metadata"]["annotations"][UNGATED].startswith("container echo keeps a preStop hook of its own")
            document = (await status_of(KubeClient(stage.lab.lab.exchange, "lab"), "pod", NS, "own")).document
            assert document["pod"]["ungated"] == own["metadata"]["annotations"][UNGATED]

    play(story, BARE)


def test_an_old_pod_stays_without_a_gate_until_it_is_made_anew():
    """Hooks are immutable: what was there before the namespace opted in is listed, and never changed."""

    async def story(stage):
        before = await decoded(stage)
        async with serving(stage):
            await configured(stage)
            assert [one.gated for one in await decoded(stage)] == [()] * 3
            await stage.api.delete(PODS, before[0].name, NS)
            await stage.gone(before[0].name)
            await stage.ready(3)
            assert sum(one.is_gated for one in await decoded(stage)) == 1
            assert len((await stage.api.list(REPLICASETS, Selection(NS))).items) == 1, "and no revision was made"

    play(story, BARE)
