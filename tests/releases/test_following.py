"""A command line whose release another process carries: it looks on, and leaves when it said it would."""

from __future__ import annotations

import asyncio

from scene import play
from stage import NS
from troupe import BAD, SPECS, ask_for, engine

from tidegate.client.options import Identity
from tidegate.client.release.command import About, ReleaseOptions, carry_on


def test_who_follows_another_at_work_leaves_after_its_timeout():
    async def story(stage):
        async with engine(stage, SPECS["rolling"]) as (made, book):
            await ask_for(book, images=BAD)  # halts after 60 s and not sooner
            running = asyncio.create_task(made.run(30))
            await asyncio.sleep(3)
            began = stage.now
            options = ReleaseOptions(Identity("bob@desk", "other"), timeout_seconds=4.0, seed=2)
            entry = await asyncio.wait_for(carry_on(stage.client, book, About(NS, "echo"), options), 20)
            assert entry.status.phase == "progressing"
            assert 4.0 <= stage.now - began < 6.0
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    play(story)


def test_who_follows_tells_what_the_other_one_decided_and_nothing_of_its_own():
    """A follower reads no connections: by its own look every revision would seem to have none."""

    async def story(stage):
        async with engine(stage, SPECS["bluegreen"]) as (made, book):
            running = asyncio.create_task(made.run(200))
            await asyncio.sleep(1)
            turns = []
            options = ReleaseOptions(Identity("bob@desk", "other"), seed=2)
            entry = await carry_on(stage.client, book, About(NS, "echo"), options, turns.append)
            assert entry.status.phase == "done"
            assert turns and not any(turn.decision.steps for turn in turns)
            assert [turn.decision.status for turn in turns] == [turn.sight.entry.status for turn in turns]
            await running

    play(story)
