"""Rainbow's old pods without a gate are looked at once more before they end: what is told of them is what was seen."""

from __future__ import annotations

import pytest
from scene import play
from stage import deployment
from troupe import SPECS, ask_for, at_rest, engine

from tidegate.client.release.activity import Work


def seen_at_last(monkeypatch, count):
    async def connections(self, sight, pods):
        return {one.uid: count for one in pods}

    monkeypatch.setattr(Work, "connections", connections)


@pytest.mark.parametrize("count", [None, 1])
def test_what_has_work_again_or_is_not_known_stays(monkeypatch, count):
    seen_at_last(monkeypatch, count)

    async def story(stage):
        old = {one["metadata"]["name"] for one in await stage.pods()}
        async with engine(stage, SPECS["rainbow"]) as (made, book):
            await made.run(60)
            if count:
                await ask_for(book, retire=("r1",))  # it lets go what is not known, never what is busy
                await made.run(60)
            assert old <= {one["metadata"]["name"] for one in await stage.pods()}
            assert {(stage.result(name) or {}).get("result") for name in old} == {None}

    play(story, deployment(gate=False, grace=30), limit=600)


def test_of_what_somebody_retired_though_its_work_was_not_known_nobody_says_verified(monkeypatch):
    seen_at_last(monkeypatch, None)

    async def story(stage):
        old = {one["metadata"]["name"] for one in await stage.pods()}
        async with engine(stage, SPECS["rainbow"]) as (made, book):
            await made.run(30)
            await ask_for(book, retire=("r1",))
            await at_rest(made, book)
            assert {stage.result(name)["result"] for name in old} == {"assumed"}

    play(story, deployment(gate=False, grace=30), limit=600)
