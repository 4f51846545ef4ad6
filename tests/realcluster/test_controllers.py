"""The lab's controllers make of a story what kube-controller-manager makes of it, object by object, event by event."""

from __future__ import annotations

import asyncio

import pytest
from tests.realcluster import stories_autoscalers, stories_controllers, stories_services, stories_workloads
from tests.realcluster.controllers_twin import tell_both
from tests.realcluster.twin import leaves

STORIES = (
    *stories_controllers.STORIES,
    *stories_services.STORIES,
    *stories_workloads.STORIES,
    *stories_autoscalers.STORIES,
)

pytestmark = pytest.mark.realcluster


@pytest.fixture(scope="module")
def told(real_cluster):
    return asyncio.run(tell_both(str(real_cluster.kubeconfig), STORIES))


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__.replace("_", "-"))
def test_the_controllers_agree(told, story):
    real, lab = told[story.__name__]
    assert [what for what, _ in real] == [what for what, _ in lab]
    found = [
        f"{what}: {line}" for (what, one), (_, two) in zip(real, lab, strict=True) for line in leaves(one, two, "")
    ]
    assert not found
