"""Whatever comes after whatever, restarts and failed transactions between: the kernel holds what a fresh proxy writes,
and the agent's readers, of dumps and of the kernel's own messages, see the routes that were meant."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.dataplane import iptables, nft
from tidegate.dataplane.frontends import EVERYTHING
from tidegate.lab.kernel.client import KernelError
from tidegate.lab.network.ruleset import node_rules
from tidegate.lab.network.seam import IPTABLES_1_36, NFT_1_30, NFT_1_36
from tidegate.lab.proxy import rules
from tidegate.observers.linux.following import Followed
from tidegate.observers.linux.generation import Generations

from .packets_world import inside
from .random_moments import moments
from .rules_world import PLACE, namespace, needs_root, normal, saved_chains

pytestmark = needs_root()

EXAMPLES = max(1, int(os.environ.get("TIDEGATE_EXAMPLES", "300")) // 100)
steps = st.lists(st.tuples(st.sampled_from(["", "", "", "restart", "fail"]), moments()), min_size=2, max_size=5)


def wanted(entries):
    """(address or ``node-port``, port, protocol) -> endpoints, whoever asks."""
    found: dict[tuple[str, int, str], set[str]] = {}
    for entry in entries:
        routing = entry.routing
        found[entry.cluster_ip, entry.port, entry.protocol] = set(entry.endpoints)
        # under the policy Local the node and its pods are sent as the ClusterIP's clients are
        outside = {*routing.cluster, *(routing.local if routing.is_external_local else ())}
        for address in routing.load_balancer_ips + routing.external_ips:
            found[address, entry.port, entry.protocol] = outside
        if entry.node_port:
            found["node-port", entry.node_port, entry.protocol] = outside
    return {key: endpoints for key, endpoints in found.items() if endpoints}


def seen(facts):
    return {
        ("node-port" if route.via == "node-port" else route.address, route.port, route.protocol): set(
            map(str, route.endpoints)
        )
        for route in facts.routes
    }


@pytest.fixture(scope="module")
def nodes():
    with namespace() as node, namespace() as fresh:
        yield node, fresh


def ruleset(node, shape, **options):
    """What stands in the kernel, and the agent's reading of it."""
    if shape == IPTABLES_1_36:
        saved = node.call(["iptables-save"]).decode()
        return saved_chains(saved), iptables.parse(saved, "n1") if "*nat" in saved else None
    listed = node.call(["nft", "-j", "list", "ruleset"])
    return normal(json.loads(listed)["nftables"], **options), nft.parse(listed, "n1")


async def play(shape, nodes, story):
    node, fresh = nodes
    for one in nodes:
        one.call(["nft", "flush", "ruleset"])
    writer = node_rules(shape, node.run, PLACE)
    with inside(node):
        followed = Followed(Generations())
    for event, moment in story:
        entries = rules.routed(*moment, rules.Place(PLACE.name))
        if event == "restart":
            writer = node_rules(shape, node.run, PLACE)
        if event == "fail":
            before = ruleset(node, shape)
            node.is_failing = True
            with contextlib.suppress(KernelError):  # a commit without a change runs nothing
                await writer.commit(entries)
            node.is_failing = False
            assert shape == IPTABLES_1_36 or ruleset(node, shape) == before
        await writer.commit(entries)
        fresh.call(["nft", "flush", "ruleset"])
        await node_rules(shape, fresh.run, PLACE).commit(entries)
        stands, facts = ruleset(node, shape, keeps_empty_chains=False)
        assert stands == ruleset(fresh, shape)[0]
        with inside(node):
            followed_facts, _ = followed.facts(EVERYTHING)
        for found in (facts, followed_facts):
            assert found.unreadable == ()
            assert seen(found) == wanted(entries)
    followed.close()


@pytest.mark.parametrize("shape", [NFT_1_36, NFT_1_30, IPTABLES_1_36])
def test_after_any_sequence_the_table_is_that_of_a_fresh_proxy(shape, nodes):
    @settings(max_examples=EXAMPLES, print_blob=True)
    @given(steps)
    def sequence(story):
        asyncio.run(play(shape, nodes, story))

    sequence()
