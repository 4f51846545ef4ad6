"""Releases asked for by a newer command line (or operator) than the agents of the cluster, and the other way round.

An older coordinator refuses a question with a field that it does not know (400, by the field's name): that is no yes.
"""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from operator_stage import Hand, release, served, until
from stage import NS, deployment, play
from terminal_of_releases import Terminal
from troupe import SPECS, V2, engine, requests, serving

from tidegate.agent import coordinator, questions
from tidegate.client.release.book import ConfigMapBook
from tidegate.kube.api import RELEASES
from tidegate.kube.exchange import whole
from tidegate.observers.coordinator import PROTOCOL
from tidegate.observers.proxied import ProxiedCoordinator
from tidegate.observers.witness import QUESTION_PATH
from tidegate.release.record import Phase


class OldAsk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The question as coordinators knew it before they were asked about added pods."""

    uid: str
    namespace: str
    name: str
    endpoints: tuple[str, ...]
    mode: str
    round: str = ""
    since: str = ""
    wait_seconds: float = 0.0
    fresh: bool = False
    done: bool = False
    seen: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    protocol: int = PROTOCOL


@pytest.fixture
def old(monkeypatch):
    """``old(True)``: the coordinator is of the version before, until ``old(False)``. Counts what it refused."""
    known, seen = coordinator.decode_ask, {"is_old": False, "refused": 0}

    def decode(body):
        if seen["is_old"]:
            try:
                msgspec.json.decode(body, type=OldAsk)
            except ValueError:
                seen["refused"] += 1
                raise
        return known(body)

    monkeypatch.setattr(coordinator, "decode_ask", decode)

    def turn(is_old):
        seen["is_old"] = is_old
        return seen

    return turn


@pytest.fixture
def terminal(capsys, monkeypatch, tmp_path):
    return Terminal(capsys, monkeypatch, tmp_path)


ASKING = {
    "bluegreen": "--strategy bluegreen --service echo --keep 3s",
    "canary": "--strategy canary --service echo --steps 50:2s,100",
    "rainbow": "--strategy rainbow --service echo",
}


@pytest.mark.parametrize("strategy", ASKING)
def test_a_release_halts_with_the_way_out_and_goes_on_once_the_agents_are_upgraded(terminal, old, strategy):
    async def story(stage):
        old(True)
        async with requests(stage) as seen:
            began = stage.now
            told = await terminal.type(f"start deploy/echo --image echo=tidegate/echo:v2 --yes {ASKING[strategy]}")
            assert told.endswith("-> 1\n\n"), told
            assert stage.now - began < 60
            assert "halted" in told and "unknown field `addition`" in told and "tidegate install" in told
            told = await terminal.type("status deploy/echo")
            assert "halted" in told and "tidegate install" in told and "unknown field `addition`" in told
            told = await terminal.type("resume deploy/echo")
            assert told.endswith("-> 1\n\n") and "tidegate install" in told, "asked again, and refused again"
            old(False)
            told = await terminal.type("resume deploy/echo")
            assert told.endswith("-> 0\n\n"), told
            assert await serving(stage) == {"v2"}
        assert seen.lost == [] and seen.sent > 100

    play(story, deployment(replicas=2), limit=900)


@pytest.mark.parametrize("strategy", ["bluegreen", "rainbow"])
def test_an_operator_goes_on_by_itself_once_the_agents_are_upgraded(old, strategy):
    async def story(stage):
        await served(stage)
        counts = old(True)
        section = {"service": "echo", "keepSeconds": 3} if strategy == "bluegreen" else {"service": "echo"}
        hand = Hand(stage)
        await stage.api.create(RELEASES, release(strategy=strategy, images=V2, **{strategy: section}))
        await until(stage, "halted")
        before = counts["refused"]
        await asyncio.sleep(180)
        status = (await stage.api.get(RELEASES, "echo", NS))["status"]
        assert status["phase"] == "halted" and "tidegate install" in status["reason"]
        assert 3 <= counts["refused"] - before <= 40, "asked again now and then, not in a loop"
        assert sum("ask whether" in note["text"] for note in status["notes"]) <= 4, "and not written down each time"
        old(False)
        await until(stage, "done")
        assert await serving(stage) == {"v2"}
        await hand.leave()

    play(story, deployment(replicas=2), limit=900)


def test_an_abort_that_is_refused_halts_and_is_an_abort_still(terminal, old):
    async def story(stage):
        words = f"start deploy/echo --image echo=tidegate/echo:v2 --yes {ASKING['bluegreen']}"
        old(True)
        assert "halted" in await terminal.type(words)
        told = await terminal.type("abort deploy/echo --yes")
        assert told.endswith("-> 1\n\n") and "tidegate install" in told, told
        old(False)
        told = await terminal.type("resume deploy/echo")
        entry = await ConfigMapBook(stage.client, NS, "echo").read()
        assert entry.status.phase == Phase.ABORTED.value, told
        assert await serving(stage) == {"v1"}

    play(story, deployment(replicas=2), limit=900)


def test_an_older_command_line_is_answered_by_a_newer_coordinator_as_before():
    async def story(stage):
        pod = min(await stage.pods(), key=lambda one: one["metadata"]["name"])
        ask = OldAsk(
            uid=pod["metadata"]["uid"],
            namespace=NS,
            name=pod["metadata"]["name"],
            endpoints=("192.0.2.1:9/TCP",),
            mode="label",
            round="old",
            services=("tidegate-system/tidegate-fence",),
        )
        asked = ProxiedCoordinator(stage.client)
        for _ in range(50):
            view = await asked.acknowledge(ask)
            if view.nodes and all(one.verdict == "confirmed" for one in view.nodes):
                break
            await asyncio.sleep(0.2)
        assert {one.node: one.verdict for one in view.nodes} == dict.fromkeys(
            ("node-1", "node-2", "node-3"), "confirmed"
        )

    play(story, deployment(replicas=2))


def test_an_agent_of_another_version_on_one_node_is_named_and_is_no_yes(monkeypatch):
    """It answers as an agent does that a question says nothing to: until its node is upgraded, nothing is settled."""
    known, old = questions.Questions.exchange, ["node-2"]

    async def exchange(self, request):
        if self._witness.node in old and request.path == QUESTION_PATH:
            return whole(400, b'{"error": "protocol 2 is not spoken here, only 1"}')
        return await known(self, request)

    monkeypatch.setattr(questions.Questions, "exchange", exchange)

    async def story(stage):
        async with engine(stage, SPECS["bluegreen"]) as (made, book):
            running = asyncio.create_task(made.run(120))
            await asyncio.sleep(40)
            entry = await book.read()
            assert entry.status.phase == Phase.PROGRESSING.value
            assert "node-2" in entry.status.reason and "only 1" in entry.status.reason
            assert all("node-2" in name for one in entry.status.asked.values() for name in one.stragglers)
            assert not any(one.is_settled for one in entry.status.asked.values())
            old.clear()
            assert (await running).phase == Phase.DONE.value

    play(story, deployment(replicas=2))
