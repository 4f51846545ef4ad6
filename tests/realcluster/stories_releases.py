"""Releases by the command line, on the word of a real kubelet's node: kube-proxy routes, the agent answers, the gate
holds; played by ``test_gate_on_kubelet``. Requests are counted by clients, connections by the node's own kernel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.realcluster import judge
from tests.realcluster.gate_scene import GATE, PODS_OF_EACH, SYNC_SECONDS, Life, Scene, scene
from tests.realcluster.judge import Load, eventually

from tidegate.kube.api import REPLICASETS, Selection
from tidegate.model.names import Ending

pytestmark = pytest.mark.usefixtures("installed")
ALL_VERIFIED = {Ending.VERIFIED}
PATIENCE_SECONDS = 15.0
"""Of a client. The machine may be slow, that is no loss; what went to a pod that is gone is never answered: a SYN that
is sent again has the address that conntrack remembers."""
BACK_SECONDS = 3.0
"""A rollback of blue/green, from the start of its process to the node's word. Told always, judged where the machine is
not busy with more than ``LOAD_MAX`` (8 in all of two cores): every process here is a real one."""
LOAD_MAX = 8.0


@dataclass(frozen=True, slots=True)
class Ran:
    """One command: what it said line by line, and when (the loop's clock)."""

    shown: dict[str, Any]
    said: list[tuple[float, str]]
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def told_at(self) -> float:
        """When it said its last line: that it is done."""
        return self.said[-1][0]


async def release(here: Scene, *words: str, code: int = 0, killed_at: str = "") -> Ran:
    """``tidegate release WORDS`` in the namespace, as a process of its own. Its exit code has to be ``code``.

    It is killed without a word once it has said a line with ``killed_at``; its exit code is then that of SIGKILL.
    """
    where = ["--kubeconfig", str(here.node.plane.kubeconfig), "-n", here.namespace, "-y", "-o", "json"]
    env = {**os.environ, "TIDEGATE_LEDGER": str(ledger(here))}
    loop = asyncio.get_running_loop()
    began, said = loop.time(), []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidegate", "release", *words, *where),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )
    assert process.stdout is not None and process.stderr is not None
    out = asyncio.create_task(process.stdout.read())
    try:
        async with asyncio.timeout(60):
            async for line in process.stderr:
                said.append((loop.time(), line.decode().rstrip()))
                if killed_at and killed_at in said[-1][1]:
                    process.kill()
                    break
            ended, shown = await process.wait(), await out
    except TimeoutError:
        raise TimeoutError(f"{words}: {said}") from None
    finally:
        if process.returncode is None:
            process.kill()
    assert ended == (-signal.SIGKILL if killed_at else code), (ended, shown.decode()[-3000:], said)
    return Ran(json.loads(shown or "{}"), said, began, loop.time())


@dataclass
class Film:
    """What the kernel had counted, again and again. ``looks``: (from, to, connections opened by pod address)."""

    looks: list[tuple[float, float, dict[str, int]]] = field(default_factory=list)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            counts = await asyncio.to_thread(judge.opened)
            self.looks.append((began, loop.time(), counts))
            await asyncio.sleep(0.02)  # realtime: real connections

    def opened(self, lives: list[Life], since: float, until: float = float("inf")) -> int:
        """Connections to these pods that were certainly opened from ``since`` on, none of them after ``until``."""
        inside = [counts for began, ended, counts in self.looks if began >= since and ended <= until]
        return opened_at(inside[-1], lives) - opened_at(inside[0], lives)


@contextlib.asynccontextmanager
async def filmed() -> AsyncIterator[Film]:
    film = Film()
    with judge.counting():
        filming = asyncio.create_task(film.run())
        try:
            yield film
        finally:
            filming.cancel()
            await asyncio.gather(filming, return_exceptions=True)


async def all_gone(here: Scene, lives: list[Life]) -> None:
    async def are_gone() -> bool:
        return all(one.gone_at for one in lives)

    await eventually(are_gone, "the pods that were retired are gone", 40)


def outcome(name: str, ran: Ran, load: Load, lives: list[Life], here: Scene) -> None:
    """One line of figures."""
    results = [one.result.result.value if one.result else "no record" for one in lives]
    counted = {one: results.count(one) for one in results}
    requests = f"{load.lost}/{load.outcomes.total()} lost (longest {load.lasted:.2f} s)"
    version, load_average = here.node.plane.version, os.getloadavg()[0]
    print(f"{version} {name}: {requests}, {ran.seconds:.1f} s, retired {counted}, load {load_average:.1f}")
    print(*(f"{at - ran.began:6.1f} s lost: {why}" for at, why in load.losses), sep="\n")
    print(*(f"{at - ran.began:6.1f} s | {line}" for at, line in ran.said), sep="\n")


def ledger(here: Scene) -> Path:
    """Where the commands of this scene write what they drained."""
    return here.node.folder / f"{here.namespace}.jsonl"


def drained(here: Scene) -> dict[str, str]:
    """Pods that were drained by label, with what came of it."""
    entries = [json.loads(line) for line in ledger(here).read_text().splitlines()]
    return {one["pod"]: one["result"] for one in entries if one["mode"] == "label"}


def opened_at(counts: dict[str, int], lives: list[Life]) -> int:
    return sum(counts.get(one.ip, 0) for one in lives)


def of(here: Scene, prefix: str) -> list[Life]:
    return [one for one in here.lives.values() if one.name.startswith(prefix)]


def of_blue(here: Scene) -> list[Life]:
    return [one for one in of(here, "web-") if not one.name.startswith("web-r2-")]


async def test_rolling_under_load_loses_nothing_and_every_retirement_is_verified(node):
    async with scene(node, "release-rolling") as here:
        address = await here.deployment("web", PODS_OF_EACH, GATE)
        with judge.counting():
            async with Load(address, seconds=PATIENCE_SECONDS) as load:
                await asyncio.sleep(SYNC_SECONDS)  # realtime: kube-proxy routes to all three
                ran = await release(here, "start", "deploy/web", "--restart")
                old = here.lives_of("web")
                await all_gone(here, old)
            at_the_end = judge.opened()
        outcome("rolling", ran, load, old, here)
        assert load.lost == 0 and load.outcomes.total() > 300, load.outcomes
        assert ran.shown["phase"] == "done" and not ran.shown["unverified"]
        assert len(old) == PODS_OF_EACH and {one.result and one.result.result for one in old} == ALL_VERIFIED
        for one in old:
            assert one.opened["result"] == at_the_end[one.ip], (one, "opened after the proof", at_the_end)


async def test_pods_without_a_gate_are_replaced_by_gated_twins_first_and_nothing_is_lost(node):
    """The gate is put into the Deployment in place: its real controller begins no rollout by that."""
    async with scene(node, "release-ungated") as here:
        address = await here.deployment("web", PODS_OF_EACH, None)
        ungated = list(of(here, "web-"))
        async with Load(address, seconds=PATIENCE_SECONDS) as load:
            await asyncio.sleep(SYNC_SECONDS)  # realtime: kube-proxy routes to all three
            ran = await release(here, "start", "deploy/web", "--restart")
            await all_gone(here, here.lives_of("web"))
        twins = [one for one in here.lives_of("web") if one not in ungated]
        outcome("rolling, no gate", ran, load, twins, here)
        made = (await here.api.list(REPLICASETS, Selection(here.namespace))).items
        assert load.lost == 0 and load.outcomes.total() > 300, load.outcomes
        assert ran.shown["phase"] == "done" and not ran.shown["unverified"]
        assert len(made) == 2, "a ReplicaSet for the gate alone: that was a rollout"
        assert all(one.gone_at for one in ungated)
        assert drained(here) == dict.fromkeys((one.name for one in ungated), "verified")
        assert {one.result and one.result.result for one in twins} == ALL_VERIFIED


async def test_blue_green_flips_on_the_nodes_word_and_back_within_three_seconds(node):
    async with scene(node, "release-bluegreen") as here:
        address = await here.deployment("web", PODS_OF_EACH, GATE)
        async with filmed() as film:
            async with Load(address, seconds=PATIENCE_SECONDS) as load:
                await asyncio.sleep(SYNC_SECONDS)  # realtime: kube-proxy routes to all three
                there = await release(here, "start", "deploy/web", "--restart", "--strategy", "bluegreen")
                blue, green = of_blue(here), of(here, "web-r2-")
                await asyncio.sleep(2)  # realtime: real requests, after it was told that it is done
                back = await release(here, "rollback", "deploy/web")
                await asyncio.sleep(2)  # realtime: the same for the way back
                again = await release(here, "rollback", "deploy/web", "--to", "r2")
                retired = await release(here, "retire", "deploy/web", "--revision", "r1")
                await all_gone(here, blue)
            at_the_end = judge.opened()
        outcome("bluegreen", there, load, blue, here)
        print(f"back {back.seconds:.2f} s, again {again.seconds:.2f} s, retire {retired.seconds:.2f} s")
        strays = [film.opened(blue, there.told_at, back.began), film.opened(green, back.told_at, again.began)]
        strays.append(film.opened(blue, again.told_at))
        new = [film.opened(green, there.told_at, back.began), film.opened(blue, back.told_at, again.began)]
        print(f"strays after each flip was told: {strays}, connections to whom it flipped: {new}")
        assert load.lost == 0 and load.outcomes.total() > 600, load.outcomes
        assert strays == [0, 0, 0] and min(new) > 100
        assert film.opened(blue, there.told_at - 3, there.told_at) > 0, "the judge sees no connection to blue"
        assert back.seconds < BACK_SECONDS or os.getloadavg()[0] > LOAD_MAX, back
        told = {one["question"]: one["verdict"] for one in there.shown["questions"]}
        assert told and set(told.values()) == {"yes"}, "not on the word of the node"
        assert not retired.shown["unverified"]
        assert len(blue) == PODS_OF_EACH and {one.result and one.result.result for one in blue} == ALL_VERIFIED
        for one in blue:
            assert one.opened["result"] == at_the_end[one.ip], (one, "opened after the proof", at_the_end)


async def test_a_canary_by_the_ratio_of_pods_loses_nothing(node):
    async with scene(node, "release-canary") as here:
        address = await here.deployment("web", PODS_OF_EACH, GATE)
        async with Load(address, seconds=PATIENCE_SECONDS) as load:
            await asyncio.sleep(SYNC_SECONDS)  # realtime: kube-proxy routes to all three
            steps = ("--strategy", "canary", "--steps", "34:2s,100")
            ran = await release(here, "start", "deploy/web", "--restart", *steps)
            old = of_blue(here)
            await all_gone(here, old)
        outcome("canary", ran, load, old, here)
        assert load.lost == 0 and load.outcomes.total() > 600, load.outcomes
        assert ran.shown["phase"] == "done" and not ran.shown["unverified"]
        assert {one.result and one.result.result for one in old} == ALL_VERIFIED


async def test_rainbow_leaves_the_pod_with_a_connection_until_that_has_ended(node):
    async with scene(node, "release-rainbow") as here:
        address = await here.deployment("web", PODS_OF_EACH, GATE)
        with judge.counting():
            before = judge.opened()
            reader, writer = await asyncio.open_connection(address, 80)
            [kept] = [one for one in of(here, "web-") if judge.opened().get(one.ip, 0) > before.get(one.ip, 0)]
        async with Load(address, seconds=PATIENCE_SECONDS) as load:
            await asyncio.sleep(SYNC_SECONDS)  # realtime: kube-proxy routes to all three
            going = asyncio.create_task(release(here, "start", "deploy/web", "--restart", "--strategy", "rainbow"))
            old = of_blue(here)
            await all_gone(here, [one for one in old if one is not kept])
            await asyncio.sleep(3)  # realtime: nothing is to happen
            assert not kept.deleted_at, "with a connection open"
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            assert (await reader.read()).endswith(b"served\n"), "the kept connection was cut"
            writer.close()
            ran = await going
            await all_gone(here, old)
        outcome("rainbow", ran, load, old, here)
        assert load.lost == 0 and load.outcomes.total() > 600, load.outcomes
        assert {one.result and one.result.result for one in old} == ALL_VERIFIED
