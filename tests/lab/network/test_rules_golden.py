"""The table a lab's node has is the one a real kube-proxy of the same version wrote for the same objects."""

from __future__ import annotations

import pytest

from tidegate.lab.network.ruleset import node_rules
from tidegate.lab.network.seam import NFT_1_30, NFT_1_36

from .rules_world import GOLDEN, PLACE, golden, golden_entries, namespace, needs_root, normal

pytestmark = needs_root()

VERSIONS = {"v1.36.2-nftables": NFT_1_36, "v1.30.5-nftables": NFT_1_30}
CASES = sorted(
    path.name.removesuffix("-nft-json.gz")
    for path in GOLDEN.glob("*-nft-json.gz")
    if path.name.startswith(tuple(VERSIONS))
)


@pytest.mark.parametrize("case", CASES)
async def test_the_table_is_that_of_the_real_proxy(case):
    shape = next(shape for version, shape in VERSIONS.items() if case.startswith(version))
    with namespace() as node:
        await node_rules(shape, node.run, PLACE).commit(golden_entries(case))
        ours = normal(node.table())
    theirs = normal(golden(case), keeps_empty_chains=False)
    assert ours == theirs
