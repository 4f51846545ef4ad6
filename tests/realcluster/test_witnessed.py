"""Label mode with an agent and a coordinator behind a real API server: asked through pods/proxy, verified or named."""

from __future__ import annotations

import json

import pytest
from tests.realcluster.fake_kubelet import NODE
from tests.realcluster.scene import scene
from tests.realcluster.stand_in import own_address, tidegate_installed

from tidegate.kube.api import ENDPOINTSLICES, Selection
from tidegate.model.names import SYSTEM_NAMESPACE

pytestmark = [
    pytest.mark.realcluster,
    pytest.mark.skipif(not own_address(), reason="played by test_witnessed_apart, in a network namespace of its own"),
]


async def test_a_drain_is_verified_through_the_api_servers_proxy(real_cluster):
    async with scene(real_cluster, "witnessed") as here, tidegate_installed(here.api, own_address()):
        name = (await here.names())[0]
        shown = await here.tidegate("status", "svc/web")
        assert shown.code == 0 and f"{NODE}  fence " in shown.out, shown.out
        assert "routes to 10.77." in shown.out and "cannot be asked" not in shown.out
        ran = await here.tidegate("drain", f"pod/{name}", "--yes", "-o", "json")
        assert ran.code == 0, ran.err
        told = json.loads(ran.out)
        assert (told["result"], told["stragglers"]) == ("verified", [])
        (fence,) = (await here.api.list(ENDPOINTSLICES, Selection(SYSTEM_NAMESPACE))).items
        assert fence["metadata"]["annotations"]["tidegate.dev/epoch"].endswith(f"/{told['epoch']}")
        assert name not in await here.names()


async def test_a_node_that_does_not_sync_is_named_and_the_pod_stays(real_cluster):
    async with scene(real_cluster, "witnessed-frozen") as here, tidegate_installed(here.api, own_address()) as kernel:
        name = (await here.names())[0]
        kernel.is_frozen = True
        ran = await here.tidegate("drain", f"pod/{name}", "--yes", "--timeout", "1500ms")
        assert ran.code == 4 and "timed-out" in ran.out and NODE in ran.out, ran.out
        shown = await here.tidegate("status", f"pod/{name}")
        assert "drain: overdue" in shown.out and "routes to" in shown.out, shown.out
        kernel.is_frozen = False
        again = await here.tidegate("drain", f"pod/{name}", "--yes")
        assert again.code == 0 and "verified" in again.out, again.out + again.err
