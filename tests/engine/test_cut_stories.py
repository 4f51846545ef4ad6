"""A cut: the first half of a drain. No new connection can arrive, the pod lives on."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from stage import NS, deployment, first, play

from tidegate.client import VerbOptions, cut_pod, drain_pod
from tidegate.client.options import Identity
from tidegate.client.plan import plan_pod
from tidegate.kube.api import PODDISRUPTIONBUDGETS, PODS, SERVICES, Patch
from tidegate.model import pod
from tidegate.model.names import Ending, decode_drain

OPTIONS = VerbOptions(timeout_seconds=60, seed=0, identity=Identity("ann@desk", "one"))
UNGATED = deployment(gate=False)


async def seen(stage, name):
    return pod.decode(await stage.api.get(PODS, name, NS))


def test_a_cut_pod_is_out_of_its_service_verified_and_lives():
    async def story(stage):
        name = await first(stage)
        result = await cut_pod(stage.client, NS, name, OPTIONS)
        assert result.result is Ending.VERIFIED
        await asyncio.sleep(5)
        kept = await seen(stage, name)
        assert kept.labels["app"] == "tidegate-cut"
        record = decode_drain(kept.annotations)
        assert (record.verb, record.by, record.state, record.is_at_rest) == ("cut", "ann@desk", "UNROUTED", True)
        assert record.labels["app"] == "echo"

    play(story, UNGATED)


def test_a_cut_pod_is_drained_from_where_it_stands():
    async def story(stage):
        name = await first(stage)
        await cut_pod(stage.client, NS, name, OPTIONS)
        result = await drain_pod(stage.client, NS, name, VerbOptions(seed=1))
        assert result.result is Ending.VERIFIED

    play(story, UNGATED)


def test_of_two_who_cut_at_once_one_wins_and_the_other_is_told_who_and_when():
    async def story(stage):
        name = await first(stage)
        other = VerbOptions(timeout_seconds=60, seed=1, identity=Identity("bob@sofa", "two"))
        results = await asyncio.gather(cut_pod(stage.client, NS, name, OPTIONS), cut_pod(stage.client, NS, name, other))
        assert sorted(one.result.value for one in results) == ["refused", "verified"]
        record = decode_drain((await seen(stage, name)).annotations)
        loser = next(one for one in results if one.result is Ending.REFUSED)
        assert record.token in loser.reason and record.at in loser.reason and record.by in loser.reason

    play(story, UNGATED)


def test_who_comes_while_another_is_at_work_is_refused_and_after_a_kill_goes_on():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", "node-2", 40)
        running = asyncio.create_task(cut_pod(stage.client, NS, name, OPTIONS))
        await asyncio.sleep(3)
        bob = VerbOptions(timeout_seconds=60, seed=1, identity=Identity("bob@sofa", "two"))
        refused = await cut_pod(stage.client, NS, name, bob)
        assert refused.result is Ending.REFUSED and "being cut by ann@desk" in refused.reason
        # Interrupted: the lease is given back at once, and the next run goes on.
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        stage.fault("clear", "node-2")
        assert (await cut_pod(stage.client, NS, name, bob)).result is Ending.VERIFIED

    play(story, UNGATED)


TWO_LABELS = deployment(gate=False)
TWO_LABELS["spec"]["template"]["metadata"]["labels"] = {"app": "echo", "a": "on", "b": "on"}


async def with_both(stage, label_of_b):
    """Two Services more, by other labels."""

    def by(name, selector):
        spec = {"selector": selector, "ports": [{"name": "http", "port": 8080, "targetPort": 8080}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NS}, "spec": spec}

    await stage.api.create(SERVICES, by("svc-a", {"a": "on"}))
    await stage.api.create(SERVICES, by("svc-b", label_of_b))
    await asyncio.sleep(3)
    return await first(stage)


def test_a_cut_from_one_service_is_verified_while_another_goes_on_sending():
    async def story(stage):
        name = await with_both(stage, {"b": "on"})
        only = replace(OPTIONS, services=("svc-a",))
        plan = await plan_pod(stage.client, (NS, name), "cut", only, True)
        assert plan.cut.labels == {"a": "tidegate-cut"}
        assert [str(one) for one in plan.services] == [f"{NS}/svc-a"]
        assert f"{NS}/svc-b goes on sending to it" in plan.consequences
        assert (await cut_pod(stage.client, NS, name, only)).result is Ending.VERIFIED
        kept = await seen(stage, name)
        assert (kept.labels["a"], kept.labels["b"]) == ("tidegate-cut", "on")

    play(story, TWO_LABELS)


def test_a_cut_says_whom_else_its_label_takes_the_pod_from_and_minds_their_floor():
    async def story(stage):
        name = await with_both(stage, {"a": "on", "app": "echo"})
        only = replace(OPTIONS, services=("svc-a",))
        plan = await plan_pod(stage.client, (NS, name), "cut", only, True)
        assert f"{NS}/svc-b loses it too: it selects by a=on,app=echo" in plan.consequences
        assert [str(one) for one in plan.services] == [f"{NS}/svc-a", f"{NS}/svc-b"]
        (refused,) = (await plan_pod(stage.client, (NS, name), "cut", replace(only, floor=3), True)).refused(only)[1:]
        assert refused.startswith(f"{NS}/svc-b would keep 2")

    play(story, TWO_LABELS)


def test_what_an_earlier_cut_left_alone_has_its_floor_checked_before_it_is_cut_too():
    async def story(stage):
        name = await with_both(stage, {"b": "on"})
        await cut_pod(stage.client, NS, name, replace(OPTIONS, services=("svc-a",)))
        refused = await cut_pod(stage.client, NS, name, replace(OPTIONS, floor=3))
        assert refused.result is Ending.REFUSED and f"{NS}/svc-b would keep 2" in refused.reason
        assert "svc-a" not in refused.reason
        assert (await cut_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED
        kept = await seen(stage, name)
        assert (kept.labels["a"], kept.labels["b"]) == ("tidegate-cut", "tidegate-cut")

    play(story, TWO_LABELS)


def test_a_service_that_is_not_there_or_does_not_select_the_pod_is_a_refusal():
    async def story(stage):
        name = await with_both(stage, {"app": "other"})
        for wanted, words in (("nosuch", "there is no Service nosuch"), ("svc-b", "svc-b does not select")):
            result = await cut_pod(stage.client, NS, name, replace(OPTIONS, services=(wanted,)))
            assert result.result is Ending.REFUSED and words in result.reason
        assert decode_drain((await seen(stage, name)).annotations) is None

    play(story, TWO_LABELS)


def test_a_bare_pod_whose_labels_a_gitops_manager_keeps_is_not_cut_and_an_owned_one_is():
    tracked = {"argocd.argoproj.io/instance": "shop"}

    async def story(stage):
        name = await first(stage)
        await stage.api.patch(PODS, name, Patch({"metadata": {"labels": tracked}}), NS)
        owned = await plan_pod(stage.client, (NS, name), "cut", OPTIONS, True)
        assert not owned.refused(OPTIONS)
        await stage.api.patch(PODS, name, Patch({"metadata": {"ownerReferences": None}}), NS)
        bare = await plan_pod(stage.client, (NS, name), "cut", OPTIONS, True)
        (refused,) = bare.refused(replace(OPTIONS, force=True))
        assert "Argo CD manages it (argocd.argoproj.io/instance: shop)" in refused
        assert "set app=tidegate-cut where it is managed" in refused

    play(story, UNGATED)


def test_a_budget_that_has_not_been_told_of_the_last_cut_leaves_no_room_for_the_next():
    async def story(stage):
        name = await with_both(stage, {"b": "on"})
        other = next(one["metadata"]["name"] for one in await stage.pods() if one["metadata"]["name"] != name)
        spec = {"minAvailable": 2, "selector": {"matchLabels": {"a": "on"}}}
        meta = {"name": "keep", "namespace": NS}
        await stage.api.create(PODDISRUPTIONBUDGETS, {"apiVersion": "policy/v1", "metadata": meta, "spec": spec})
        await asyncio.sleep(2)
        only = replace(OPTIONS, services=("svc-a",))
        assert (await cut_pod(stage.client, NS, name, only)).result is Ending.VERIFIED
        await asyncio.sleep(5)
        budget = await stage.api.get(PODDISRUPTIONBUDGETS, "keep", NS)
        assert budget["status"]["disruptionsAllowed"] == 1, "its controller is not told, as on v1.36.2"
        before = await seen(stage, other)
        refused = await cut_pod(stage.client, NS, other, only)
        assert refused.result is Ending.REFUSED and "PodDisruptionBudget keep" in refused.reason
        assert (await seen(stage, other)).resource_version == before.resource_version

    play(story, TWO_LABELS)
