"""canary's planner, told forward over a world of pods, routes and clients (``canary_world``)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from canary_world import World

from tidegate.release.analysis import Finding
from tidegate.release.canary import FULL
from tidegate.release.fork import Fork
from tidegate.release.scene import REVISION_LABEL
from tidegate.release.spec import Analysis

ROUTERS = ("replicas", "httproute")
SUCCESS = Analysis("success-rate", "prometheus", url="http://p:9090", query="q", success=">= 0.99", interval_seconds=2)


def standing(world, number, template):
    """How many pods of each revision, and whom the Service selects."""
    return [(one.name, one.desired) for one in world.revisions]


@pytest.mark.parametrize("router", ROUTERS)
def test_good_to_good_step_by_step(router, golden):
    world = World(router=router, steps=(25, 50), pause=5.0)
    world.play(2)
    world.release("t2")
    world.to_the_end()
    assert [(one.name, one.desired) for one in world.revisions] == [("r1", 0), ("r2", 4)]
    assert world.available_min >= 3
    assert list(world.selectors) == ["web"]
    assert world.fork in (None, Fork("httproute/web", {"web": 100}))
    golden(f"release/canary-{router}.txt", world.text())


@pytest.mark.parametrize("router", ROUTERS)
def test_the_next_release_retires_the_one_before(router):
    world = World(router=router)
    for number in (2, 3, 4):
        world.release(f"t{number}")
        world.to_the_end()
    assert [(one.name, one.desired) for one in world.revisions] == [("r1", 0), ("r4", 4)]
    assert world.retired == ["r2", "r3"]
