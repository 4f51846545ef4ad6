"""``rollback`` without a name: to what was released before, whatever became of others meanwhile."""

from __future__ import annotations

import asyncio

import pytest
from scene import play
from troupe import BAD, SPECS, V2, V3, ask_for, at_rest, engine, requests, serving

from tidegate.client.release.command import About, before, no_way_back
from tidegate.release.spec import BlueGreen
from tidegate.release.strategies import STRATEGIES

LIMIT = 1500
ABOUT = About("demo", "echo")


def told(strategy, story):
    """Play with clients, and no request lost; ``story(stage, made, book)``."""

    async def whole(stage):
        async with requests(stage) as seen, engine(stage, SPECS[strategy]) as (made, book):
            await story(stage, made, book)
            await asyncio.sleep(3)
        assert seen.lost == []

    play(whole, limit=LIMIT)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_never_to_one_that_was_given_up(strategy):
    async def story(stage, made, book):
        second = (await at_rest(made, book)).revision
        await ask_for(book, images=BAD)
        await at_rest(made, book, ("halted",))
        await ask_for(book, wish="abort")
        status = await at_rest(made, book, ("aborted",))
        assert before(status) == second, "as long as nothing else was released, what stood before it"
        await ask_for(book, wish="", images=V3)
        status = await at_rest(made, book)
        assert before(status) == second and status.revision != second
        await ask_for(book, rollback_to=before(status))
        await at_rest(made, book)
        assert await serving(stage) == {"v2"}

    told(strategy, story)


def test_by_the_name_that_another_strategy_gave_it():
    async def story(stage, made, book):
        second = await at_rest(made, book)
        await ask_for(book, rollback_to=before(second))
        first = (await at_rest(made, book)).revision
        assert (second.revision, first) == ("r2", "r1")
        await asyncio.sleep(30)  # r2 is warm for 3 s
        await made.run(60)
        await ask_for(book, strategy="rolling", bluegreen=BlueGreen(), images=V3, rollback_to="")
        third = await at_rest(made, book)
        assert before(third) == "r1" and await no_way_back(stage.client, book, ABOUT) == ""
        await ask_for(book, rollback_to="r1")
        await at_rest(made, book)
        assert await serving(stage) == {"v1"}

    told("bluegreen", story)


def test_what_is_known_by_name_alone_is_refused_before_it_is_asked_for():
    async def story(stage, made, book):
        await at_rest(made, book)
        told = await no_way_back(stage.client, book, ABOUT, "5d8f7c9b6")
        assert told == (
            "$.spec.rollbackTo: there is no revision 5d8f7c9b6: name one of `tidegate release history` with --to"
        )
        assert (await book.read()).spec.images == V2

    told("rolling", story)
