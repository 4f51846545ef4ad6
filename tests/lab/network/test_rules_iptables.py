"""kube-proxy's other backend: the rules are the real one's, a restore is atomic for each table."""

from __future__ import annotations

import pytest

from tidegate.dataplane import iptables
from tidegate.lab.kernel.client import KernelError
from tidegate.lab.network import iptables as written
from tidegate.lab.network.ruleset import node_rules
from tidegate.lab.network.seam import IPTABLES_1_36

from .packets_world import ENDPOINTS, entry
from .packets_world import PLACE as HERE
from .rules_world import GOLDEN, PLACE, golden_entries, namespace, needs_root, saved_chains

pytestmark = needs_root()

CASES = sorted(path.name.removesuffix("-iptables-save.txt") for path in GOLDEN.glob("v1.36.2-*-iptables-save.txt"))
OTHER = entry(*ENDPOINTS, name="other", cluster_ip="10.96.1.2")


@pytest.fixture
def node():
    with namespace() as made:
        yield made


@pytest.mark.parametrize("case", CASES)
async def test_the_rules_are_those_of_the_real_proxy(case, node):
    await node_rules(IPTABLES_1_36, node.run, PLACE).commit(golden_entries(case))
    assert saved_chains(node.call(["iptables-save"]).decode()) == saved_chains(
        (GOLDEN / f"{case}-iptables-save.txt").read_text()
    )


async def routes(node) -> set[str]:
    facts = iptables.parse(node.call(["iptables-save"]).decode())
    assert facts.unreadable == ()
    return {f"{route} {endpoint}" for route in facts.routes for endpoint in route.endpoints}


async def test_a_sync_writes_the_chains_of_changed_services_and_deletes_stale_ones(node):
    rules = node_rules(IPTABLES_1_36, node.run, HERE)
    await rules.commit((entry(*ENDPOINTS), OTHER))
    await rules.commit((entry(ENDPOINTS[1]), OTHER))
    restore = node.runs[-1][1].decode()
    assert "default/web:http -> " in restore and "default/other:http -> " not in restore
    assert restore.count("-X KUBE-SEP-") == 1
    saved = node.call(["iptables-save"]).decode()
    assert saved.count(":KUBE-SEP-") == 3
    with namespace() as fresh:
        await node_rules(IPTABLES_1_36, fresh.run, HERE).commit((entry(ENDPOINTS[1]), OTHER))
        assert saved_chains(fresh.call(["iptables-save"]).decode()) == saved_chains(saved)


async def test_nat_that_is_refused_leaves_filter_changed_and_the_next_sync_mends_both(node):
    rules = node_rules(IPTABLES_1_36, node.run, HERE)
    await rules.commit((entry(*ENDPOINTS),))
    before = await routes(node)
    node.is_failing = True
    with pytest.raises(KernelError):
        await rules.commit((entry(),))
    saved = node.call(["iptables-save", "-t", "filter"]).decode()
    assert "has no endpoints" in saved and await routes(node) == before
    node.is_failing = False
    await rules.commit((entry(),))
    assert await routes(node) == set()


async def test_a_large_clusters_chains_have_no_comments_and_stale_ones_stand(node, monkeypatch):
    monkeypatch.setattr(written, "LARGE", 3)
    rules = node_rules(IPTABLES_1_36, node.run, HERE)
    await rules.commit((entry(*ENDPOINTS), OTHER))
    await rules.commit((entry(ENDPOINTS[1], serving=ENDPOINTS), OTHER))
    saved = node.call(["iptables-save"]).decode()
    assert saved.count(":KUBE-SEP-") == 4 and "default/web:http ->" not in saved
    assert not [route for route in await routes(node) if "web" in route and ENDPOINTS[0] in route]


async def test_a_proxy_that_restarts_takes_over_what_is_there(node):
    await node_rules(IPTABLES_1_36, node.run, HERE).commit((entry(*ENDPOINTS), OTHER))
    await node_rules(IPTABLES_1_36, node.run, HERE).commit((OTHER,))
    saved = node.call(["iptables-save"]).decode()
    assert "default/web" not in saved
    assert saved.count("-j KUBE-SERVICES") == 4
