"""Blue pods without a gate, out of traffic: they end as they are, once that is known and nothing is in flight."""

from __future__ import annotations

import asyncio

from scene import ask, play
from stage import NS, SERVICE, deployment
from troupe import SPECS, at_rest, engine, requests

from tidegate.client.release import asking
from tidegate.client.release.activity import Work
from tidegate.kube.api import SERVICES
from tidegate.release.record import Asked

BLUE = 3


async def begun(made, book, seconds=20):
    """The release for so long, and why it waits then."""
    await made.run(seconds)
    return (await book.read()).status


def test_a_connection_that_stays_keeps_its_pod_until_it_ends():
    async def story(stage):
        old = {one["metadata"]["name"] for one in await stage.pods()}
        reader, writer = await ask(stage, path="/sleep?ms=60000", keep=True)
        async with requests(stage, pause=0.1) as seen, engine(stage, SPECS["bluegreen"]) as (made, book):
            status = await begun(made, book, 40)
            assert status.phase == "progressing"
            assert "1 connection still" in status.reason, status.reason
            assert {one["metadata"]["name"] for one in await stage.pods()} >= old
            assert b" 200 " in await reader.readuntil(b"\r\n")
            writer.close()
            await at_rest(made, book)
            assert set(made.endings.of_round) == old, "no twin was made, and ended"
            assert {stage.result(name)["result"] for name in old} == {"verified"}
        assert seen.lost == []

    play(story, deployment(gate=False, grace=30), limit=600)


def test_pods_that_another_service_has_too_are_drained_by_label_behind_a_twin():
    """Of that Service nobody was asked."""

    async def story(stage):
        other = {**SERVICE, "metadata": {"name": "other", "namespace": NS}}
        await stage.api.create(SERVICES, other)
        await asyncio.sleep(3)
        old = {one["metadata"]["name"] for one in await stage.pods()}
        async with requests(stage, pause=0.1) as seen, requests(stage, "other", 0.1) as beside:
            async with engine(stage, SPECS["bluegreen"]) as (made, book):
                await at_rest(made, book)
                assert len(set(made.endings.of_round) - old) == BLUE, "each had a twin"
                assert {stage.result(name)["result"] for name in old} == {"verified"}
        assert (seen.lost, beside.lost) == ([], [])

    play(story, deployment(gate=False, grace=30), limit=600)


def test_where_sockets_cannot_be_read_a_pod_is_not_taken_for_idle(monkeypatch):
    async def unknown(self, sight, pods):
        return {one.uid: None if one.name == max(two.name for two in pods) else 0 for one in pods}

    monkeypatch.setattr(Work, "connections", unknown)

    async def story(stage):
        old = {one["metadata"]["name"] for one in await stage.pods()}
        async with requests(stage, pause=0.1) as seen, engine(stage, SPECS["bluegreen"]) as (made, book):
            await at_rest(made, book)
            assert len(set(made.endings.of_round) - old) == BLUE, "each had a twin"
            assert {stage.result(name)["result"] for name in old} == {"verified"}
        assert seen.lost == []

    play(story, deployment(gate=False, grace=30), limit=600)


def test_a_service_that_comes_while_it_is_looked_at_is_seen_before_the_end(monkeypatch):
    seen_at = []
    original = Work.connections

    async def read(self, sight, pods):
        if not seen_at:
            seen_at.append(asyncio.get_running_loop().time())
            other = {**SERVICE, "metadata": {"name": "late", "namespace": NS}}
            await self._client.create(SERVICES, other, NS)
            await asyncio.sleep(1)
        return await original(self, sight, pods)

    monkeypatch.setattr(Work, "connections", read)

    async def story(stage):
        old = {one["metadata"]["name"] for one in await stage.pods()}
        async with engine(stage, SPECS["bluegreen"]) as (made, book):
            await at_rest(made, book)
            assert seen_at
            assert len(set(made.endings.of_round) - old) == BLUE, "each had a twin"
            assert {stage.result(name)["result"] for name in old} == {"verified"}

    play(story, deployment(gate=False, grace=30), limit=600)


def test_a_no_at_the_last_look_ends_nobody(monkeypatch):
    """A coordinator that was rolled back meanwhile refuses the question: that is no answer to go on by."""
    ask_all = asking.answer

    async def refused(client, subject, nonce, heard):
        if not nonce.startswith("end-"):
            return await ask_all(client, subject, nonce, heard)
        return Asked("no", stragglers=("coordinator (refuses the question)",), refused="unknown field")

    monkeypatch.setattr(asking, "answer", refused)

    async def story(stage):
        old = {one["metadata"]["name"] for one in await stage.pods()}
        async with engine(stage, SPECS["bluegreen"]) as (made, book):
            status = await begun(made, book, 60)
            assert "coordinator (refuses the question)" in status.reason
            assert old <= {one["metadata"]["name"] for one in await stage.pods()}
            assert {stage.result(name) for name in old} == {None}

    play(story, deployment(gate=False, grace=30), limit=600)
