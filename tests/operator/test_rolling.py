"""A Release object, a Deployment, and the operator between them."""

from __future__ import annotations

import asyncio
import gc

import pytest
from operator_stage import NS, Hand, asked, condition, play, until
from stage import deployment

from tidegate.client.release.look import Sight
from tidegate.kube import wire
from tidegate.kube.api import DEPLOYMENTS, DRAINS, Selection
from tidegate.kube.exchange import Request
from tidegate.model.names import HELD
from tidegate.operator.drain_object import entry_of


async def image_of(stage):
    found = await stage.api.get(DEPLOYMENTS, "echo", NS)
    return found["spec"]["template"]["spec"]["containers"][0]["image"]


def test_a_release_object_rolls_its_deployment_and_every_old_pod_ends_verified():
    async def story(stage):
        hand = Hand(stage)
        old = [one["metadata"]["name"] for one in await stage.pods()]
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        done = await until(stage, "done")
        assert await image_of(stage) == "tidegate/echo:v2"
        assert {(stage.result(name) or {}).get("result") for name in old} == {"verified"}
        assert done["status"]["ready"] == "3/3"
        assert [condition(done, kind)["status"] for kind in ("Accepted", "Progressing", "Healthy", "Complete")] == [
            "True", "False", "True", "True",
        ]  # fmt: skip
        assert done["metadata"]["finalizers"] == ["tidegate.dev/release"]
        await asyncio.sleep(2)
        drains = {one["spec"]["pod"]: one for one in (await stage.client.list(DRAINS, Selection(NS))).items}
        assert sorted(drains) == sorted(old)
        assert {one["status"]["result"] for one in drains.values()} == {"verified"}
        assert all(
            {"node-1", "node-2", "node-3"} <= {a["observer"] for a in one["status"]["observers"]}
            for one in drains.values()
        )
        assert all(entry_of(one).node == one["spec"]["node"] for one in drains.values())
        _, _, body = await wire.fetch(wire.Peer("127.0.0.1", 18081), Request("GET", "/metrics"))
        assert b'tidegate_drain_seconds_count{result="verified"} 3.0' in body
        assert b'tidegate_observer_acknowledgement_seconds_count{observer="node"} 9.0' in body
        await hand.leave()

    play(story)


def test_of_a_release_at_rest_nothing_is_left_for_the_collector():
    """What a look saw is a namespace: of a thousand releases, kept in rings, it was 3 GiB where nobody collected."""

    async def story(stage):
        hand = Hand(stage)
        gc.collect()
        gc.disable()
        try:
            await asked(stage, images={"echo": "tidegate/echo:v2"})
            await until(stage, "done")
            await asyncio.sleep(2)
            sights = [one for one in gc.get_objects() if isinstance(one, Sight)]
        finally:
            gc.enable()
        assert sights == []
        await hand.leave()

    play(story)


@pytest.mark.parametrize(("is_gated", "step"), [(True, 1), (False, 7)])
def test_killed_after_any_write_the_next_operator_ends_the_release_and_no_pod_ends_unverified(is_gated, step):
    async def story(stage, kill_at):
        first = Hand(stage, kill_at=kill_at)
        old = [one["metadata"]["name"] for one in await stage.pods()]
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        over = asyncio.create_task(until(stage, "done"))
        dying = asyncio.create_task(first.wire.killed.wait())
        await asyncio.wait((over, dying), return_when=asyncio.FIRST_COMPLETED)
        was_killed = dying.done()
        dying.cancel()
        await first.kill()
        second = Hand(stage, "operator-b", port=18082)
        await over
        assert await image_of(stage) == "tidegate/echo:v2"
        await asyncio.sleep(20)
        assert {(stage.result(name) or {}).get("result") for name in old} == {"verified"}
        assert not [one for one in await stage.pods() if HELD in one["metadata"]["labels"]], "nobody is left behind"
        await second.leave()
        assert "a bug" not in "".join(second.lines)
        return was_killed

    kill_at = 1
    while play(lambda stage, number=kill_at: story(stage, number), deployment(replicas=2, gate=is_gated)):
        kill_at += step
    assert kill_at > 4, "there were writes to be killed after"


def test_a_release_of_one_pod_takes_no_more_writes_than_it_has_things_to_say():
    async def story(stage):
        hand = Hand(stage)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "done")
        await asyncio.sleep(5)
        status = [one for one in hand.wire.writes if one.endswith("/status")]
        assert len(status) <= 7, "claimed, begun, two words of waiting, how many are ready, done, given back"
        await hand.leave()

    play(story, deployment(replicas=1))
