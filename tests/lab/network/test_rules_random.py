"""Whatever comes after whatever, restarts and failed transactions between: the kernel holds what a fresh proxy writes,
and the agent's own reader sees the routes that were meant."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.dataplane import iptables, nft
from tidegate.lab.kernel.client import KernelError
from tidegate.lab.network.ruleset import node_rules
from tidegate.lab.network.seam import IPTABLES_1_36, NFT_1_30, NFT_1_36
from tidegate.lab.proxy import rules

from .rules_world import PLACE, namespace, needs_root, normal, saved_chains

pytestmark = needs_root()

EXAMPLES = max(1, int(os.environ.get("TIDEGATE_EXAMPLES", "300")) // 100)
NAMES = ("web", "api", "db")
ADDRESSES = tuple(f"10.244.1.{last}" for last in (11, 12, 13, 14))
READY = {"ready": True, "serving": True, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
GONE = {"ready": False, "serving": False, "terminating": True}


@st.composite
def spec(draw, number):
    """A Service and its slice, or nothing."""
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": draw(st.sampled_from([0, 30080 + number]))}]
    if draw(st.booleans()):
        ports.append(
            {"name": "", "port": 53, "protocol": "UDP", "nodePort": draw(st.sampled_from([0, 30180 + number]))}
        )
    chosen = {"clusterIP": f"10.96.1.{number + draw(st.sampled_from([1, 1, 1, 2]))}", "ports": ports}
    if draw(st.booleans()):
        seconds = draw(st.sampled_from([60, 10_800]))
        chosen |= {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}
    for key in ("internalTrafficPolicy", "externalTrafficPolicy"):
        chosen[key] = draw(st.sampled_from(["Cluster", "Cluster", "Local"]))
    balanced = draw(st.sampled_from([[], [{"ip": f"192.0.2.{number}"}]]))
    if draw(st.booleans()):
        chosen["loadBalancerSourceRanges"] = [draw(st.sampled_from(["10.0.0.0/8", "203.0.113.0/24"]))]
    endpoints = [
        {"addresses": [address], "nodeName": node, "conditions": conditions}
        for address in ADDRESSES
        for node, conditions in [
            draw(st.tuples(st.sampled_from(["n1", "n2"]), st.sampled_from([READY, LEAVING, GONE])))
        ]
        if draw(st.booleans())
    ]
    return chosen, balanced, endpoints


@st.composite
def states(draw):
    """One moment of the API: Services and slices."""
    services, slices = [], []
    for number, name in enumerate(NAMES):
        if draw(st.integers(0, 4)):
            chosen, balanced, endpoints = draw(spec(number * 10))
            metadata = {"namespace": "default", "name": name}
            status = {"loadBalancer": {"ingress": balanced}}
            services.append({"metadata": metadata, "spec": chosen, "status": status})
            labels = {"kubernetes.io/service-name": name}
            ports = [{"name": one["name"], "port": 8080, "protocol": one["protocol"]} for one in chosen["ports"]]
            slices.append({"metadata": {**metadata, "labels": labels}, "endpoints": endpoints, "ports": ports})
    return rules.routed(services, slices, rules.Place("n1"))


steps = st.lists(st.tuples(st.sampled_from(["", "", "", "restart", "fail"]), states()), min_size=2, max_size=5)


def wanted(entries):
    """(address or ``node-port``, port, protocol) -> endpoints, whoever asks."""
    found: dict[tuple[str, int, str], set[str]] = {}
    for entry in entries:
        routing = entry.routing
        found[entry.cluster_ip, entry.port, entry.protocol] = set(entry.endpoints)
        # under the policy Local the node and its pods are sent as the ClusterIP's clients are
        outside = {*routing.cluster, *(routing.local if routing.is_external_local else ())}
        for address in routing.load_balancer_ips:
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
    for event, entries in story:
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
        assert facts.unreadable == ()
        assert seen(facts) == wanted(entries)


@pytest.mark.parametrize("shape", [NFT_1_36, NFT_1_30, IPTABLES_1_36])
def test_after_any_sequence_the_table_is_that_of_a_fresh_proxy(shape, nodes):
    @settings(max_examples=EXAMPLES, print_blob=True)
    @given(steps)
    def sequence(story):
        asyncio.run(play(shape, nodes, story))

    sequence()
