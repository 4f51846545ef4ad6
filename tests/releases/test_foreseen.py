"""What `--dry-run` foresees is what comes: it ends, and in so few steps that a person reads them."""

from __future__ import annotations

import msgspec
import pytest
from scene import play
from stage import NS, deployment
from troupe import SPECS, V3, at_rest, engine

from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import plan_release
from tidegate.release.strategies import STRATEGIES

NAMES = sorted(STRATEGIES)
STEPS_MAX = 25


def is_short(plan):
    seen = plan.foreseen
    assert plan.refusals == () and seen is not None and seen.breaches == ()
    steps = [one.text for one in seen.moments if one.step is not None]
    assert seen.phase == "done", seen.lines()[-5:]
    assert len(steps) <= STEPS_MAX, steps
    return True


@pytest.mark.parametrize("policy", ["drain", "proceed"])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("strategy", NAMES)
def test_a_first_release_is_told_to_its_end(strategy, gated, policy):
    async def story(stage):
        spec = msgspec.structs.replace(SPECS[strategy], ungated=policy)
        assert is_short(await plan_release(stage.client, ConfigMapBook(stage.client, NS, "echo"), NS, spec))

    play(story, deployment(gate=gated))


@pytest.mark.parametrize("strategy", NAMES)
def test_the_next_release_and_the_way_back_are_told_to_their_ends(strategy):
    async def story(stage):
        async with engine(stage, SPECS[strategy]) as (made, book):
            first = await at_rest(made, book)
            spec = (await book.read()).spec
            for change in ({"images": V3}, {"rollback_to": first.history[0].revision}):
                assert is_short(await plan_release(stage.client, book, NS, msgspec.structs.replace(spec, **change)))

    play(story, limit=900)
