"""Ten pods, 2 s to be ready and 20 s to shut down: in virtual time, and by the arithmetic of the plan."""

from __future__ import annotations

import asyncio

from bench.ten_pods import NODE_SECONDS, WORK_SECONDS, film, foreseen
from scene import NODES, ask, play
from stage import NS, deployment

from tidegate import vtime
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import About, ReleaseOptions, carry_on
from tidegate.kube.api import DEPLOYMENTS, PODS, Patch
from tidegate.kube.errors import ApiError
from tidegate.release.record import Phase
from tidegate.release.spec import Spec


async def busy(stage, node, lost):
    """2 s of work under way, all the time."""
    while True:
        try:
            reader, writer = await ask(stage, "/sleep?ms=2000", source=node)
            if b"200" not in await reader.readline():
                lost.append(node)
            writer.close()
        except OSError as error:
            lost.append(f"{node}: {error}")


def roll(is_gated):
    """(film, what clients lost, the release's phase) of one rollout."""

    async def story(stage):
        lost, phase = [], ""
        load = [asyncio.create_task(busy(stage, node, lost)) for node in NODES for _ in range(4)]
        await asyncio.sleep(3)
        old = [pod["metadata"]["name"] for pod in await stage.pods()]
        began = vtime.now().timestamp()
        if is_gated:
            book = ConfigMapBook(stage.client, NS, "echo")
            await book.begin(Spec("echo", images={"echo": "tidegate/echo:v2"}))
            entry = await carry_on(stage.client, book, About(NS, "echo"), ReleaseOptions(seed=0))
            phase = entry.status.phase
        else:
            template = {"spec": {"containers": [{"name": "echo", "image": "tidegate/echo:v2"}]}}
            await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"template": template}}, "strategic"), NS)
        for name in old:
            await gone(stage, name)
        for one in load:
            one.cancel()
        await asyncio.sleep(1)
        return film(stage.lab.journal(), NS, began), lost, phase

    ends = "drain" if is_gated else "ignore"
    env = (("STARTUP_SECONDS", "2"), ("ON_SIGTERM", ends))
    manifest = deployment(replicas=10, grace=60 if is_gated else 20, gate=is_gated, env=env)
    return play(story, manifest)


async def gone(stage, name):
    while True:
        try:
            await stage.api.get(PODS, name, NS)
        except ApiError:
            return
        await asyncio.sleep(0.1)


def test_of_ten_pods_twenty_stand_for_their_grace_and_with_tidegate_only_for_their_work():
    plain, plain_lost, _ = roll(is_gated=False)
    gated, lost, phase = roll(is_gated=True)
    assert (lost, plain_lost, phase) == ([], [], Phase.DONE.value)
    told = foreseen(20.0), foreseen(NODE_SECONDS + WORK_SECONDS)
    assert plain.most == told[0].most_pods == 20 and gated.most <= told[1].most_pods
    # Measured 26.0 s and 7.1 s, the plan says 24 and 7: readiness probes look once a second.
    assert abs(plain.seconds - told[0].seconds) < 4 and abs(gated.seconds - told[1].seconds) < 3
    assert gated.seconds < plain.seconds / 2
    extra = [one.pod_seconds - 10 * one.seconds for one in (plain, gated)]
    assert extra[1] < extra[0] / 4, "pods beyond the ten that were there anyway"
