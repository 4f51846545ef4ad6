"""Restored: a held pod gets its labels back, and what stood in for it is drained, verified."""

from __future__ import annotations

import asyncio

import pytest
from stage import NS, deployment, first, play

from tidegate.client import VerbOptions, cut_pod
from tidegate.client.isolate import isolate_pod
from tidegate.client.options import Identity
from tidegate.client.restore import restore_pod
from tidegate.kube.api import DEPLOYMENTS, ENDPOINTSLICES, PODS, REPLICASETS, SERVICES, Patch, Selection
from tidegate.kube.client import KubeClient
from tidegate.model import pod
from tidegate.model.names import DRAINING_SERVICE, HELD, Ending, decode_drain

OPTIONS = VerbOptions(timeout_seconds=60, seed=0, identity=Identity("ann@desk", "one"))
BOB = VerbOptions(timeout_seconds=60, seed=1, identity=Identity("bob@sofa", "two"))
UNGATED = deployment(gate=False)
HASH = "pod-template-hash"


async def seen(stage, name):
    return pod.decode(await stage.api.get(PODS, name, NS))


async def names(stage):
    return sorted(one["metadata"]["name"] for one in await stage.pods())


async def listed(stage, service="echo"):
    chosen = Selection(NS, f"kubernetes.io/service-name={service}")
    slices = (await stage.api.list(ENDPOINTSLICES, chosen)).items
    ends = [one for each in slices for one in each.get("endpoints") or ()]
    return sorted(one["targetRef"]["name"] for one in ends if one["conditions"].get("ready"))


async def services(stage):
    return {one["metadata"]["name"] for one in (await stage.api.list(SERVICES, Selection(NS))).items}


async def is_as_before(stage, name, labels):
    """The pod is its owner's and its Service's again, nothing of ours is left but who gave it back."""
    found = await seen(stage, name)
    assert found.labels == labels and found.owner is not None
    record = decode_drain(found.annotations)
    assert (record.verb, record.state, record.is_at_rest, record.labels) == ("restore", "RESTORED", True, {})
    assert DRAINING_SERVICE not in await services(stage)
    await asyncio.sleep(3)
    assert len(await names(stage)) == 3 and await listed(stage) == await names(stage)
    return record


def test_a_cut_pod_comes_back_and_its_replacement_is_drained_verified():
    async def story(stage):
        name = await first(stage)
        labels, before = (await seen(stage, name)).labels, set(await names(stage))
        assert (await cut_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED
        await stage.ready(4)
        assert DRAINING_SERVICE in await services(stage)
        (replacement,) = set(await names(stage)) - before
        result = await restore_pod(stage.client, (NS, name), BOB)
        assert result.result is Ending.VERIFIED and result.reason == f"pod/{replacement} went in its place", result
        record = await is_as_before(stage, name, labels)
        assert record.by == "bob@sofa"
        assert set(await names(stage)) == before
        assert stage.result(replacement)["result"] == "verified"

    play(story, UNGATED)


def test_an_isolated_pod_comes_back_and_who_goes_can_be_chosen():
    async def story(stage):
        name, _, other = await names(stage)
        labels = (await seen(stage, name)).labels
        await isolate_pod(stage.client, (NS, name), True, OPTIONS)
        await stage.ready(4)
        result = await restore_pod(stage.client, (NS, name), OPTIONS, victim=other)
        assert result.result is Ending.VERIFIED and other in result.reason
        await is_as_before(stage, name, labels)
        assert other not in await names(stage)

    play(story, UNGATED)


def test_a_pod_goes_out_and_comes_back_as_often_as_it_is_asked_to():
    async def story(stage):
        name = await first(stage)
        labels = (await seen(stage, name)).labels
        for taken in (isolated, cut, severed, cut, isolated):
            assert (await taken(stage, name)).result is Ending.VERIFIED
            await stage.ready(4)
            assert (await restore_pod(stage.client, (NS, name), OPTIONS)).result is Ending.VERIFIED
            assert (await seen(stage, name)).labels == labels
        await is_as_before(stage, name, labels)

    async def isolated(stage, name):
        return await isolate_pod(stage.client, (NS, name), True, OPTIONS)

    async def severed(stage, name):
        return await isolate_pod(stage.client, (NS, name), False, OPTIONS)

    async def cut(stage, name):
        return await cut_pod(stage.client, NS, name, OPTIONS)

    play(story, UNGATED)


def test_two_who_restore_at_once_one_wins_and_the_other_is_told_who_and_when():
    async def story(stage):
        name = await first(stage)
        await cut_pod(stage.client, NS, name, OPTIONS)
        await stage.ready(4)
        results = await asyncio.gather(*(restore_pod(stage.client, (NS, name), one) for one in (OPTIONS, BOB)))
        assert sorted(one.result.value for one in results) == ["refused", "verified"]
        record = decode_drain((await seen(stage, name)).annotations)
        loser = next(one for one in results if one.result is Ending.REFUSED)
        assert f"token {record.token}" in loser.reason and f"being restored by {record.by} since 2" in loser.reason

    play(story, UNGATED)


def test_where_another_label_is_the_services_alone_nobody_goes():
    async def story(stage):
        labels = {"metadata": {"labels": {"backend": "default"}}}
        for one in await names(stage):
            await stage.api.patch(PODS, one, Patch(labels), NS)
        await stage.api.patch(
            SERVICES, "echo", Patch({"spec": {"selector": {"app": "echo", "backend": "default"}}}), NS
        )
        await asyncio.sleep(3)
        name = await first(stage)
        before, was = (await seen(stage, name)).labels, await names(stage)
        assert (await cut_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED
        assert (await seen(stage, name)).owner is not None
        result = await restore_pod(stage.client, (NS, name), OPTIONS)
        assert (result.result, result.reason) == (Ending.VERIFIED, "")
        await is_as_before(stage, name, before)
        assert await names(stage) == was

    play(story, UNGATED)


class Between:
    """The way to the API of a restore, with something that happens after its first write."""

    def __init__(self, exchange, happens):
        self.exchange, self.happens = exchange, happens

    async def __call__(self, request):
        answer = await self.exchange(request)
        if request.method == "PATCH" and "/pods/" in request.path and self.happens is not None:
            happens, self.happens = self.happens, None
            await happens()
        return answer


def test_scaled_away_in_the_middle_it_is_not_given_back_and_scaled_up_again_the_next_run_goes_on():
    async def story(stage):
        name = await first(stage)
        labels = (await seen(stage, name)).labels
        await cut_pod(stage.client, NS, name, OPTIONS)
        await stage.ready(4)
        between = Between(stage.lab.lab.exchange, lambda: stage.scale(0))
        stopped = await restore_pod(KubeClient(between, "lab"), (NS, name), OPTIONS)
        assert stopped.result is Ending.TIMED_OUT and "would not keep it any more: it stays isolated" in stopped.reason
        await asyncio.sleep(90)
        assert await names(stage) == [name], "it serves on, alone"
        again = await restore_pod(stage.client, (NS, name), OPTIONS)
        assert again.result is Ending.REFUSED and "wants no pods" in again.reason
        await stage.scale(3)
        await stage.ready(4)
        assert (await restore_pod(stage.client, (NS, name), OPTIONS)).result is Ending.VERIFIED
        await is_as_before(stage, name, labels)

    play(story, UNGATED)


def test_rolled_out_in_the_middle_it_is_not_given_to_the_old_replicaset():
    async def story(stage):
        name = await first(stage)
        await cut_pod(stage.client, NS, name, OPTIONS)
        await stage.ready(4)

        async def rollout():
            template = {"template": {"metadata": {"labels": {"version": "2"}}}, "minReadySeconds": 60}
            await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": template}, "strategic"), NS)
            await asyncio.sleep(1)

        result = await restore_pod(KubeClient(Between(stage.lab.lab.exchange, rollout), "lab"), (NS, name), OPTIONS)
        assert result.result is Ending.TIMED_OUT and "would not keep it any more" in result.reason
        await asyncio.sleep(300)
        assert name in await names(stage) and len(await names(stage)) == 4

    play(story, UNGATED)


async def held_without(stage, change):
    """A cut pod, and then what makes its restore impossible."""
    name = await first(stage)
    await cut_pod(stage.client, NS, name, OPTIONS)
    await stage.ready(4)
    await change(stage, name)
    before = await stage.api.get(PODS, name, NS)
    result = await restore_pod(stage.client, (NS, name), OPTIONS)
    after = await stage.api.get(PODS, name, NS)
    assert result.result is Ending.REFUSED and after["metadata"]["labels"] == before["metadata"]["labels"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"], "nothing was changed"
    return result.reason


async def scaled_away(stage, name):
    await stage.scale(0)
    await asyncio.sleep(2)


async def rolled_out(stage, name):
    env = {"spec": {"template": {"metadata": {"labels": {"version": "2"}}}}}
    await stage.api.patch(DEPLOYMENTS, "echo", Patch(env, "strategic"), NS)
    await asyncio.sleep(10)


async def rolling_out(stage, name):
    await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"minReadySeconds": 60}}), NS)
    await rolled_out(stage, name)


async def made_anew(stage, name):
    await stage.api.delete(DEPLOYMENTS, "echo", NS)
    await asyncio.sleep(2)
    await stage.api.create(DEPLOYMENTS, UNGATED)
    await stage.ready(3)


async def deleted(stage, name):
    await stage.api.delete(DEPLOYMENTS, "echo", NS)
    await asyncio.sleep(2)


async def labelled(stage, name):
    await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"app": "mine"}}}), NS)


async def relabelled_beside(stage, name):
    await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {HASH: "mine"}}}), NS)


@pytest.mark.parametrize("change, why", [
    (scaled_away, "wants no pods: it would adopt it and delete it at once; `tidegate drain pod/"),
    (rolled_out, "wants no pods"),
    (rolling_out, "is revision 1 of Deployment demo/echo, which is at 2: it would be adopted and deleted at once"),
    (made_anew, "is gone or was made anew: nobody would keep it"),
    (deleted, "is gone or was made anew"),
    (labelled, "app=mine was set by hand since: it was app=echo, then app=tidegate-cut; `kubectl label pod/"),
    (relabelled_beside, f"was changed by hand to {HASH}=mine, and ReplicaSet demo/echo-"),
], ids=lambda one: getattr(one, "__name__", ""))  # fmt: skip
def test_what_would_not_keep_it_refuses_the_restore(change, why):
    async def story(stage):
        assert why in await held_without(stage, change)

    play(story, UNGATED)


def test_a_label_that_nobody_looks_at_stays_as_it_was_set_by_hand():
    async def story(stage):
        name = await first(stage)
        await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"owner": "ann"}}}), NS)
        await cut_pod(stage.client, NS, name, OPTIONS)
        await stage.ready(4)
        await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"owner": "bob", "note": "odd"}}}), NS)
        assert (await restore_pod(stage.client, (NS, name), OPTIONS)).result is Ending.VERIFIED
        found = await seen(stage, name)
        assert (found.labels["owner"], found.labels["note"]) == ("bob", "odd")
        assert found.labels["app"] == "echo" and HELD not in found.labels

    play(story, UNGATED)


def test_what_is_not_held_or_not_ready_is_refused():
    async def story(stage):
        name = await first(stage)
        nothing = await restore_pod(stage.client, (NS, name), OPTIONS)
        assert nothing.result is Ending.REFUSED and "is not held: there is nothing to restore" in nothing.reason
        await cut_pod(stage.client, NS, name, OPTIONS)
        condition = {"type": "Ready", "status": "False"}
        await stage.api.patch(PODS, name, Patch({"status": {"conditions": [condition]}}, "strategic", "status"), NS)
        result = await restore_pod(stage.client, (NS, name), OPTIONS)
        assert result.result is Ending.REFUSED and "is not Ready" in result.reason

    play(story, UNGATED)


def test_where_no_label_keeps_its_owner_away_it_comes_back_as_the_other_is_cut():
    """A bare ReplicaSet within its Service: the dip by one is announced, and nobody is deleted undrained."""

    async def story(stage):
        bare = {**deployment(gate=False), "kind": "ReplicaSet"}
        await stage.api.delete(DEPLOYMENTS, "echo", NS)
        await asyncio.sleep(90)
        await stage.api.create(REPLICASETS, bare, NS)
        await stage.ready(3)
        name, before = await first(stage), set(await names(stage))
        await cut_pod(stage.client, NS, name, OPTIONS)
        await stage.ready(4)
        (replacement,) = set(await names(stage)) - before
        result = await restore_pod(stage.client, (NS, name), OPTIONS)
        assert result.result is Ending.VERIFIED, result
        assert stage.result(replacement)["result"] == "verified"
        await asyncio.sleep(3)
        assert set(await names(stage)) == before

    play(story, UNGATED)
