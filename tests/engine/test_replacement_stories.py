"""Replacement before removal: the owner makes another pod while ours still serves, and only then is it cut."""

from __future__ import annotations

import asyncio

import pytest
from stage import NS, deployment, first, play
from under_load import Floor, Load, reserved

from tidegate.client import VerbOptions, drain_pod
from tidegate.kube.api import PODS
from tidegate.kube.errors import ApiError
from tidegate.model.names import Ending

OPTIONS = VerbOptions(seed=0)
ONE = deployment(replicas=1, gate=False)
FOUR = deployment(replicas=4, gate=False)


@pytest.mark.parametrize("manifest", [ONE, FOUR], ids=["1 replica", "4 replicas"])
def test_a_pod_is_drained_under_load_without_a_lost_request_and_capacity_never_dips(manifest):
    async def story(stage):
        name, floor = await first(stage), Floor(stage)
        replicas = manifest["spec"]["replicas"]
        watching = asyncio.create_task(floor.watch())
        async with Load(stage).running():
            result = await drain_pod(stage.client, NS, name, OPTIONS)
        watching.cancel()
        assert result.result is Ending.VERIFIED, result
        assert floor.least == replicas
        with pytest.raises(ApiError):
            await stage.api.get(PODS, name, NS)
        assert len(await stage.pods()) == replicas
        assert await reserved(stage) == {}

    play(story, manifest)
