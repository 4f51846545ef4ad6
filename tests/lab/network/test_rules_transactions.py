"""When and how a node's rules reach its kernel: one transaction for each sync, as the real kube-proxies do it."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.dataplane import nft
from tidegate.lab.kernel.client import KernelError
from tidegate.lab.kernel.tables import ServiceEntry, TableError
from tidegate.lab.network import conntrack
from tidegate.lab.network.nft_common import hashed
from tidegate.lab.network.ruleset import node_rules
from tidegate.lab.network.seam import NFT_1_30, NFT_1_36

from .packets_world import ENDPOINTS, PLACE, entry
from .rules_world import GOLDEN, golden_entries, namespace, needs_root, normal

pytestmark = needs_root()

OTHER = entry(*ENDPOINTS, name="other", cluster_ip="10.96.1.2")


@pytest.fixture
def node():
    with namespace() as made:
        yield made


def chains(node) -> set[str]:
    return {one["chain"]["name"] for one in node.table() if "chain" in one}


async def test_a_commit_is_one_transaction_and_one_without_a_change_is_none(node):
    rules = node_rules(NFT_1_36, node.run, PLACE)
    await rules.commit((entry(*ENDPOINTS), OTHER))
    assert len(node.transactions) == 1
    await rules.commit((entry(*ENDPOINTS), OTHER))
    assert len(node.transactions) == 1


async def test_1_36_writes_what_changed_and_1_30_everything(node):
    for shape, says_other in ((NFT_1_36, False), (NFT_1_30, True)):
        rules = node_rules(shape, node.run, PLACE)
        await rules.commit((entry(*ENDPOINTS), OTHER))
        await rules.commit((entry(*ENDPOINTS[:1]), OTHER))
        assert ("default/other" in node.transactions[-1]) is says_other
        assert "default/web" in node.transactions[-1]


async def test_a_chain_that_left_is_emptied_at_once_and_deleted_by_a_sync_a_second_later(node):
    rules = node_rules(NFT_1_36, node.run, PLACE)
    gone = f"endpoint-{hashed('default/web/tcp/http__10.244.1.11/8080')}"
    await rules.commit((entry(*ENDPOINTS, affinity_seconds=60),))
    await rules.commit((entry(ENDPOINTS[1], affinity_seconds=60),))
    assert gone in chains(node) and normal(node.table())[f"chain {gone}"]["rules"] == []
    await rules.commit((entry(ENDPOINTS[1], affinity_seconds=60), OTHER))
    assert gone in chains(node)  # a sync within the second empties it again, and the second begins anew
    await asyncio.sleep(1.02)
    await rules.commit((entry(ENDPOINTS[1], affinity_seconds=60),))
    assert gone not in chains(node)


async def test_an_emptied_chain_that_is_wanted_again_stays(node):
    rules = node_rules(NFT_1_36, node.run, PLACE)
    for endpoints in (ENDPOINTS, ENDPOINTS[:1], ENDPOINTS):
        await rules.commit((entry(*endpoints, affinity_seconds=60),))
    await asyncio.sleep(1.02)
    await rules.commit((entry(*ENDPOINTS, affinity_seconds=60), OTHER))
    assert (nft.parse(node.call(["nft", "-j", "list", "ruleset"])).unreadable) == ()
    assert {f"endpoint-{hashed(f'default/web/tcp/http__10.244.1.{last}/8080')}" for last in (11, 12)} <= chains(node)


async def test_a_refused_transaction_changes_nothing_and_the_next_writes_everything(node):
    rules = node_rules(NFT_1_36, node.run, PLACE)
    await rules.commit((entry(*ENDPOINTS), OTHER))
    before = normal(node.table())
    node.is_failing = True
    with pytest.raises(KernelError, match="no-such-chain"):
        await rules.commit((entry(*ENDPOINTS[:1]), OTHER))
    node.is_failing = False
    assert normal(node.table()) == before
    await rules.commit((entry(*ENDPOINTS[:1]), OTHER))
    assert "default/other" in node.transactions[-1] and "add table" in node.transactions[-1]


async def test_after_a_cancelled_commit_the_next_writes_everything(node):
    rules = node_rules(NFT_1_36, node.run, PLACE)
    await rules.commit((entry(*ENDPOINTS), OTHER))
    task = asyncio.create_task(rules.commit((entry(*ENDPOINTS[:1]), OTHER)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await rules.commit((entry(*ENDPOINTS[:1]), OTHER))
    assert "default/other" in node.transactions[-1] and "add table" in node.transactions[-1]


async def test_what_somebody_deleted_is_mended_by_the_sync_after_the_one_that_trips(node):
    rules = node_rules(NFT_1_36, node.run, PLACE)
    await rules.commit((entry(*ENDPOINTS),))
    whole = normal(node.table())
    node.call(["nft", "flush", "ruleset"])
    with pytest.raises(KernelError):
        await rules.commit((entry(*ENDPOINTS[:1]),))
    await rules.commit((entry(*ENDPOINTS),))
    assert normal(node.table()) == whole


@pytest.mark.parametrize("old, new", [(NFT_1_30, NFT_1_36), (NFT_1_36, NFT_1_30)])
async def test_another_version_takes_a_table_over(node, old, new):
    entries = golden_entries("v1.36.2-nftables-h-loadbalancer-local")
    await node_rules(old, node.run, PLACE).commit(entries)
    before = nft.parse(node.call(["nft", "-j", "list", "ruleset"]))
    await node_rules(new, node.run, PLACE).commit(entries)
    after = nft.parse(node.call(["nft", "-j", "list", "ruleset"]))
    assert after.unreadable == ()
    assert set(map(str, after.routes)) == set(map(str, before.routes))


async def test_an_entry_made_for_a_relay_is_refused_before_the_kernel_hears_of_it(node):
    rules = node_rules(NFT_1_36, node.run, PLACE)
    with pytest.raises(TableError, match=r"a real kernel needs those of proxy\.rules\.routed"):
        await rules.commit((ServiceEntry("default", "web", "http", "TCP", "10.96.1.1", 80, 0, ENDPOINTS),))
    assert node.runs == []


async def test_flows_are_listed_after_the_commit_and_only_when_a_udp_service_changed(node):
    rules = node_rules(NFT_1_36, node.run, PLACE)
    dns = entry(*ENDPOINTS, name="dns", cluster_ip="10.96.1.3", port=53, protocol="UDP")
    await rules.commit((dns,))
    assert [command[0] for command, _ in node.runs] == ["nft", "nft", "conntrack"]
    await rules.commit((dns, entry(*ENDPOINTS)))
    assert [command[0] for command, _ in node.runs[3:]] == ["nft"]


async def test_a_sync_that_failed_never_cleans_up_after_its_changes(node):
    """kube-proxy 1.36 has emptied its list of changes by then: the flows stay where they are."""
    rules = node_rules(NFT_1_36, node.run, PLACE)
    dns = entry(*ENDPOINTS, name="dns", cluster_ip="10.96.1.3", port=53, protocol="UDP")
    await rules.commit((dns,))
    node.is_failing = True
    moved = (entry(ENDPOINTS[0], name="dns", cluster_ip="10.96.1.3", port=53, protocol="UDP"),)
    with pytest.raises(KernelError):
        await rules.commit(moved)
    node.is_failing = False
    node.runs.clear()
    await rules.commit(moved)
    assert [command[0] for command, _ in node.runs] == ["nft", "nft"]


async def test_a_flow_that_ended_meanwhile_keeps_no_other_from_being_forgotten():
    """`conntrack -D` exits 1 where it finds nothing."""
    listing = (GOLDEN / "v1.36.2-nftables-g-udp-conntrack.txt").read_text()
    listing += listing.replace("10.244.1.21", "10.244.1.29")
    tried = []

    async def run(command, given):
        if "-L" in command:
            return listing.encode()
        tried.append(command[command.index("--reply-src") + 1])
        raise KernelError("conntrack: exit 1: 0 flow entries have been deleted")

    await conntrack.UdpFlows(run).clean(golden_entries("v1.36.2-nftables-g2-udp-1left"))
    assert tried == ["10.244.1.21", "10.244.1.29"]


def test_of_the_flows_of_a_real_node_those_to_the_endpoint_that_left_are_stale():
    listing = (GOLDEN / "v1.36.2-nftables-g-udp-conntrack.txt").read_text()
    left = conntrack.stale(listing, golden_entries("v1.36.2-nftables-g2-udp-1left"))
    assert left and {(one.dialled, one.dialled_port, one.answering) for one in left} == {
        ("10.96.1.3", 53, "10.244.1.21")
    }
    assert conntrack.stale(listing, golden_entries("v1.36.2-nftables-g-udp")) == ()
    assert conntrack.stale(listing, golden_entries("v1.36.2-nftables-a-3ready")) == ()
