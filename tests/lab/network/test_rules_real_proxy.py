"""Random moments of an API, shown to a real kube-proxy and to a lab's: the same rules stand in both kernels."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os

import pytest
from hypothesis import Phase, given, settings

from tidegate.lab.kernel.client import KernelError
from tidegate.lab.network.ruleset import node_rules
from tidegate.lab.network.seam import IPTABLES_1_36, NFT_1_36
from tidegate.lab.proxy import rules

from .random_moments import moments
from .real_proxy import BINARY, real_proxy
from .rules_world import PLACE, namespace, needs_root, normal, saved_chains

pytestmark = [
    needs_root(),
    pytest.mark.realcluster,
    pytest.mark.skipif(not BINARY.exists(), reason="KUBEBUILDER_ASSETS has no kube-proxy"),
]
EXAMPLES = int(os.environ.get("TIDEGATE_EXAMPLES", "15"))
SECONDS_MAX = 8.0


def stands(node, shape):
    if shape == IPTABLES_1_36:
        return saved_chains(node.call(["iptables-save"]).decode())
    return normal(node.table(), keeps_empty_chains=False)


@pytest.mark.parametrize("shape, mode", [(NFT_1_36, "nftables"), (IPTABLES_1_36, "iptables")])
async def test_a_labs_proxy_writes_what_the_real_one_writes(shape, mode, tmp_path):
    drawn = []

    @settings(max_examples=EXAMPLES, phases=[Phase.generate], database=None)
    @given(moments())
    def draw(moment):
        drawn.append(moment)

    draw()
    with namespace() as theirs, namespace() as ours:
        writer = node_rules(shape, ours.run, PLACE)
        async with real_proxy(theirs, mode, tmp_path) as api:
            for moment in drawn:
                await writer.commit(rules.routed(*moment, rules.Place(PLACE.name)))
                wanted = stands(ours, shape)
                api.show(*moment)
                found = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SECONDS_MAX):
                        while found != wanted:
                            await asyncio.sleep(0.05)
                            with contextlib.suppress(KernelError):  # its table is not there yet
                                found = stands(theirs, shape)
                assert found == wanted, json.dumps(moment)
