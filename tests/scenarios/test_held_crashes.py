"""cut, isolate and restore killed with SIGKILL after every write they make: the next run comes to the same end."""

from __future__ import annotations

import asyncio

import pytest
from scene import Mortal, play
from stage import NS, deployment, first

from tidegate.client import VerbOptions, cut_pod, drain_pod
from tidegate.client.isolate import isolate_pod
from tidegate.client.options import Identity
from tidegate.client.restore import restore_pod
from tidegate.kube.api import PODS, SERVICES, Selection
from tidegate.kube.client import KubeClient
from tidegate.model import pod
from tidegate.model.names import DRAINING_SERVICE, HELD, RESERVATIONS, TOMBSTONE, Ending, decode_drain

UNGATED = deployment(gate=False)
ANN = VerbOptions(timeout_seconds=60, seed=0, identity=Identity("ann@desk", "killed"))
NEXT = VerbOptions(timeout_seconds=60, seed=1, identity=Identity("ann@desk", "next", lambda holder: False))


async def cut(client, name, options):
    return await cut_pod(client, NS, name, options)


async def keep(client, name, options):
    return await isolate_pod(client, (NS, name), True, options)


async def sever(client, name, options):
    return await isolate_pod(client, (NS, name), False, options)


async def restore(client, name, options):
    return await restore_pod(client, (NS, name), options)


WRITES = {"cut": 9, "keep": 2, "sever": 9, "restore": 23, "restore isolated": 24}
"""PATCHes of pods and their Service, the Service that keeps cut pods scrapeable, DELETEs, in an undisturbed run."""
DOING = {"cut": cut, "keep": keep, "sever": sever, "restore": restore, "restore isolated": restore}
HELD_BEFORE = {"restore": cut, "restore isolated": keep}
HELD_AFTER = {"cut": "cut", "keep": "isolated", "sever": "cut", "restore": None, "restore isolated": None}


async def run_until_killed(stage, verb, name, last):
    """Run a verb that dies after its ``last`` write: whether it did, and all it wrote."""
    mortal = Mortal(stage.lab.lab.exchange, last)
    running = asyncio.create_task(DOING[verb](KubeClient(mortal, "lab"), name, ANN))
    dying = asyncio.create_task(mortal.died.wait())
    await asyncio.wait((running, dying), return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    return mortal.died.is_set(), mortal.writes


async def is_at_its_end(stage, verb, name, labels):
    """Everything as after a run that nobody disturbed."""
    found = pod.decode(await stage.api.get(PODS, name, NS))
    record = decode_drain(found.annotations)
    assert record.is_at_rest and found.labels.get(HELD) == HELD_AFTER[verb]
    names = {one["metadata"]["name"] for one in await stage.pods()}
    services = {one["metadata"]["name"]: one for one in (await stage.api.list(SERVICES, Selection(NS))).items}
    assert (DRAINING_SERVICE in services) is (HELD_AFTER[verb] == "cut")
    assert RESERVATIONS not in (services["echo"]["metadata"].get("annotations") or {})
    if verb in HELD_BEFORE:
        assert found.labels == labels and found.owner is not None and record.state == "RESTORED"
        assert len(names) == 3
        others = [pod.decode(one) for one in await stage.pods()]
        assert [one.name for one in others if HELD in one.labels] == []
    else:
        assert record.labels == labels and found.owner is None
        assert len(names) == 4, "one replacement, and one only"


async def prepared(stage, verb):
    """The pod, and its labels when nobody had touched it."""
    name = await first(stage)
    labels = pod.decode(await stage.api.get(PODS, name, NS)).labels
    if verb in HELD_BEFORE:
        options = VerbOptions(timeout_seconds=60, seed=2, identity=Identity("ann@desk", "before"))
        assert (await HELD_BEFORE[verb](stage.client, name, options)).result is Ending.VERIFIED
        await stage.ready(4)
    return name, labels


@pytest.mark.parametrize("verb", WRITES)
def test_an_undisturbed_run_writes_as_often_as_it_is_killed_here(verb):
    async def story(stage):
        name, labels = await prepared(stage, verb)
        _, writes = await run_until_killed(stage, verb, name, 10**6)
        await asyncio.sleep(3)
        await is_at_its_end(stage, verb, name, labels)
        assert len(writes) == WRITES[verb], "\n".join(writes)

    play(story, UNGATED)


@pytest.mark.parametrize(("verb", "last"), [(verb, last) for verb in WRITES for last in range(1, WRITES[verb] + 1)])
def test_a_verb_killed_after_any_write_is_finished_by_the_next_run(verb, last):
    async def story(stage):
        name, labels = await prepared(stage, verb)
        is_dead, _ = await run_until_killed(stage, verb, name, last)
        assert is_dead
        await asyncio.sleep(2)
        result = await DOING[verb](stage.client, name, NEXT)
        is_over = verb in HELD_BEFORE and "is not held: there is nothing to restore" in result.reason
        assert is_over or result.result is Ending.VERIFIED, result
        await asyncio.sleep(3)
        await is_at_its_end(stage, verb, name, labels)

    play(story, UNGATED)


def test_a_drain_that_died_with_its_tombstone_on_the_pod_can_still_be_taken_back():
    async def story(stage):
        name = await first(stage)
        labels = pod.decode(await stage.api.get(PODS, name, NS)).labels
        mortal = Mortal(stage.lab.lab.exchange, 10**6)
        draining = asyncio.create_task(drain_pod(KubeClient(mortal, "lab"), NS, name, ANN))
        while TOMBSTONE not in (await stage.api.get(PODS, name, NS))["metadata"]["labels"]:
            await asyncio.sleep(0.01)
        mortal.died.set()
        draining.cancel()
        assert (await restore_pod(stage.client, (NS, name), NEXT)).result is Ending.VERIFIED
        await asyncio.sleep(3)
        await is_at_its_end(stage, "restore", name, labels)

    play(story, UNGATED)
