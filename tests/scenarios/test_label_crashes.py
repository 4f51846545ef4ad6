"""Label mode killed with SIGKILL after every write it makes, run twice at once, and interfered with."""

from __future__ import annotations

import asyncio
import json

import pytest
from scene import Mortal, play
from stage import NS, deployment, first, other_node

from tidegate.client import VerbOptions, drain_pod
from tidegate.client.options import Identity
from tidegate.kube.api import PODS, SERVICES, Patch, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.model.names import DRAIN_RESULT, DRAINING_SERVICE, RESERVATIONS, TOMBSTONE, Ending

UNGATED = deployment(gate=False)
WRITES = {False: 18, True: 19}
"""PATCHes of the pod and its Service, the Service that keeps cut pods scrapeable, and the DELETE, in a drain that
nothing disturbs; by whether the replacement comes first."""
KILLED, NEXT = Identity("ann@desk", "killed"), Identity("ann@desk", "next", lambda holder: False)
EVERY = [(replace, last) for replace in (False, True) for last in range(1, WRITES[replace] + 1)]


async def killed_after(stage, name, last, replace):
    """Run a drain that dies after its ``last`` write; True when it did."""
    mortal = Mortal(stage.lab.lab.exchange, last)
    options = VerbOptions(replace=replace, seed=0, identity=KILLED)
    running = asyncio.create_task(drain_pod(KubeClient(mortal, "lab"), NS, name, options))
    dying = asyncio.create_task(mortal.died.wait())
    await asyncio.wait((running, dying), return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    return mortal.died.is_set(), mortal.writes


async def leftovers(stage):
    """What a drain that is over must not leave: records, holds, reservations, the Service for scrapers."""
    found = []
    for obj in (await stage.api.list(PODS, Selection(NS))).items:
        metadata = obj["metadata"]
        keys = [*(metadata.get("annotations") or {}), *(metadata.get("labels") or {})]
        found += [f"{metadata['name']}: {key}" for key in keys if key.startswith("tidegate.dev/")]
    for obj in (await stage.api.list(SERVICES, Selection(NS))).items:
        if obj["metadata"]["name"] == DRAINING_SERVICE:
            found.append(DRAINING_SERVICE)
        if json.loads((obj["metadata"].get("annotations") or {}).get(RESERVATIONS, "{}")):
            found.append(f"{obj['metadata']['name']}: {RESERVATIONS}")
    return found


@pytest.mark.parametrize("replace", [False, True])
def test_an_undisturbed_drain_writes_as_often_as_it_is_killed_here(replace):
    async def story(stage):
        _, writes = await killed_after(stage, await first(stage), 10**6, replace)
        assert len(writes) == WRITES[replace], writes
        assert sum(write.startswith("DELETE") and "/pods/" in write for write in writes) == 1

    play(story, UNGATED)


@pytest.mark.parametrize(("replace", "last"), EVERY)
def test_a_drain_killed_after_any_write_is_finished_by_the_next_run(replace, last):
    async def story(stage):
        name = await first(stage)
        is_dead, writes = await killed_after(stage, name, last, replace)
        assert is_dead
        await asyncio.sleep(2)
        again = VerbOptions(replace=replace, seed=1, identity=NEXT)
        if any(write.startswith("DELETE") and "/pods/" in write for write in writes):
            with pytest.raises(ApiError):
                await drain_pod(stage.client, NS, name, again)
        else:
            result = await drain_pod(stage.client, NS, name, again)
            assert result.result is Ending.VERIFIED
        assert stage.result(name)["result"] == "verified"
        await asyncio.sleep(5)
        assert len(await stage.pods()) == 3, "one replacement, and one only"
        assert len(stage.names) == 4
        assert await leftovers(stage) == []

    play(story, UNGATED)


def test_two_people_who_drain_the_same_pod_end_it_once_and_honestly():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 3)
        one = asyncio.create_task(drain_pod(stage.client, NS, name, VerbOptions(replace=False, seed=0)))
        await asyncio.sleep(1)
        other = asyncio.create_task(drain_pod(stage.client, NS, name, VerbOptions(replace=False, seed=1)))
        results = {(await one).result, (await other).result}
        assert Ending.VERIFIED in results
        assert results <= {Ending.VERIFIED, Ending.REFUSED}
        assert (await stage.gone(name)) < 1

    play(story, UNGATED)


def test_labels_given_back_during_a_second_run_are_taken_off_again():
    async def story(stage):
        name = await first(stage)
        straggler = await other_node(stage, name)
        stage.fault("proxy-freeze", straggler, 60)
        await drain_pod(stage.client, NS, name, VerbOptions(replace=False, timeout_seconds=3, seed=0))
        running = asyncio.create_task(drain_pod(stage.client, NS, name, VerbOptions(replace=False, seed=1)))
        await asyncio.sleep(2)
        await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"app": "echo"}}}), NS)
        await asyncio.sleep(1)
        stage.fault("clear", straggler)
        result = await asyncio.wait_for(running, 30)
        assert result.result is Ending.VERIFIED

    play(story, UNGATED)


@pytest.mark.parametrize("is_second_run", [False, True])
def test_a_label_given_back_in_the_last_moment_stops_the_delete(is_second_run):
    """Between the last look and the DELETE: what the record's answer shows must not be deleted as if it were proven."""

    class Meddling:
        def __init__(self, exchange, stage, name):
            self.exchange, self.stage, self.name = exchange, stage, name
            self.is_done, self.deleted_with = False, None

        async def __call__(self, request):
            if request.method == "PATCH" and DRAIN_RESULT.encode() in request.body and not self.is_done:
                self.is_done = True
                await self.stage.api.patch(PODS, self.name, Patch({"metadata": {"labels": {"app": "echo"}}}), NS)
            if request.method == "DELETE" and "/pods/" in request.path:
                pod = await self.stage.api.get(PODS, self.name, NS)
                self.deleted_with = pod["metadata"]["labels"]
            return await self.exchange(request)

    async def story(stage):
        name = await first(stage)
        if is_second_run:
            mortal = Mortal(stage.lab.lab.exchange, 10**6)
            running = asyncio.create_task(
                drain_pod(KubeClient(mortal, "lab"), NS, name, VerbOptions(replace=False, seed=0, identity=KILLED))
            )
            while TOMBSTONE not in (await stage.api.get(PODS, name, NS))["metadata"]["labels"]:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            mortal.died.set()
            running.cancel()
        meddling = Meddling(stage.lab.lab.exchange, stage, name)
        result = await asyncio.wait_for(
            drain_pod(KubeClient(meddling, "lab"), NS, name, VerbOptions(replace=False, seed=1, identity=NEXT)), 60
        )
        assert meddling.is_done
        assert result.result is Ending.VERIFIED
        assert meddling.deleted_with["app"] != "echo"

    play(story, UNGATED)


def test_a_pod_without_an_address_is_refused():
    async def story(stage):
        pod = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "nowhere", "namespace": NS},
            "spec": {"nodeSelector": {"no": "such"}, "containers": [{"name": "a", "image": "tidegate/echo:v1"}]},
        }  # fmt: skip
        await stage.api.create(PODS, pod)
        result = await asyncio.wait_for(drain_pod(stage.client, NS, "nowhere", VerbOptions(replace=False, seed=0)), 10)
        assert result.result is Ending.REFUSED
        assert "no address" in result.reason

    play(story, UNGATED)


def test_a_host_network_pod_is_drained_by_the_port_its_service_sends_to_although_it_declares_another():
    manifest = deployment(replicas=3, gate=False)
    spec = manifest["spec"]["template"]["spec"]
    spec["hostNetwork"] = True
    spec["containers"][0]["ports"] = [{"name": "metrics", "containerPort": 9090, "hostPort": 9090}]

    async def story(stage):
        name = await first(stage)
        service = await stage.api.get(SERVICES, "echo", NS)
        assert service["spec"]["ports"][0]["targetPort"] == 8080
        result = await asyncio.wait_for(drain_pod(stage.client, NS, name, VerbOptions(replace=False, seed=0)), 60)
        assert result.result is Ending.VERIFIED

    play(story, manifest)
