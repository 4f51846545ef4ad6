"""The lab answers what a real API server answers: the same requests to both, every difference known or none."""

from __future__ import annotations

import pytest
from tests.realcluster import (
    stories_access,
    stories_custom,
    stories_ends,
    stories_evictions,
    stories_families,
    stories_functions,
    stories_objects,
    stories_reads,
    stories_runners,
    stories_webhooks,
    stories_writes,
)
from tests.realcluster.known import unknown
from tests.realcluster.twin import told_apart

pytestmark = pytest.mark.realcluster

STORIES = [
    *stories_writes.STORIES,
    *stories_reads.STORIES,
    *stories_ends.STORIES,
    *stories_access.STORIES,
    *stories_evictions.STORIES,
    *stories_objects.STORIES,
    *stories_families.STORIES,
    *stories_runners.STORIES,
    *stories_custom.STORIES,
    *stories_functions.STORIES,
    *stories_webhooks.STORIES,
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__.replace("_", "-"))
async def test_the_lab_answers_as_the_real_server(quiet_cluster, story):
    namespace = f"twin-{story.__name__.replace('_', '-')}"
    assert not unknown(await told_apart(str(quiet_cluster.kubeconfig), namespace, story))
