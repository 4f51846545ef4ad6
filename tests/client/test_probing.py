"""What a probe's counts mean where no kernel says where a connection went."""

from __future__ import annotations

import asyncio

import msgspec

from tidegate.agent.probing import Prober
from tidegate.client.probing import Address, Probing
from tidegate.client.verification import Verification, outcome_of
from tidegate.dataplane.facts import Facts, Route
from tidegate.dataplane.sockets import Quiet, Socket
from tidegate.kube.errors import Unreachable
from tidegate.model import pod as pods
from tidegate.model.endpoint import Endpoint
from tidegate.observers.probe import Connection, Opened, Probe

POD = pods.decode(
    {
        "metadata": {"name": "test", "namespace": "demo", "uid": "1", "resourceVersion": "1"},
        "spec": {"containers": [{"name": "a"}], "nodeName": "node-1"},
        "status": {"podIP": "10.1.0.5"},
    }
)
WAY = Address("demo/test", "cluster-ip", "10.96.0.7", 80)


class Agents:
    """Answers every batch the same; ``at_pod`` are the sources that the pod's own sockets show."""

    def __init__(self, connections=(), at_pod=(), **more):
        self.answer = {"connections": tuple(connections), "batch": "7", **more}
        self.at_pod = at_pod
        self.closed = []

    async def call(self, node, request):
        if request.path.endswith("/close"):
            self.closed.append(node)
            return b"{}"
        if node == "gone":
            raise Unreachable("no agent")
        return msgspec.json.encode(Opened(node=node, **self.answer))

    async def connections(self, node, endpoints):
        assert node == "node-1"
        own = Endpoint("10.1.0.5", 80)
        return Quiet(tuple(Socket(own, Endpoint.parse(at), "ESTABLISHED", 0, 1) for at in self.at_pod))


def tried(agents, nodes=("node-2",), count=3):
    return asyncio.run(Probing(agents, POD, count).run(nodes, (WAY,), 5.0))


def counts(one):
    return (one.probes, one.opened, one.reached, one.refused, one.unmatched)


def test_a_source_that_the_pods_sockets_show_has_reached_it():
    agents = Agents([Connection(f"10.0.0.2:{port}") for port in (1, 2, 3)], at_pod=["10.0.0.2:1", "10.0.0.2:3"])
    assert counts(tried(agents)[0]) == (3, 3, 2, 0, 1)
    assert agents.closed == ["node-2"]


def test_what_neither_kernel_nor_pod_shows_is_unmatched_never_counted_as_elsewhere():
    agents = Agents([Connection("10.0.0.2:1"), Connection("10.0.0.2:2", "10.1.0.9:80")], silent=1)
    one = tried(agents)[0]
    assert counts(one) == (3, 2, 0, 0, 2)
    found = Verification(POD, (), (), (), (), Quiet(), (), (one,), (), "main/1", 1.0, True)
    assert outcome_of(found).outcome == "unknown"
    assert "2 of 3 connections cannot be told" in outcome_of(found).reasons[0]


def test_the_kernels_word_comes_before_the_sockets():
    agents = Agents([Connection("10.0.0.2:1", "10.1.0.9:80")], at_pod=["10.0.0.2:1"], refused=2)
    assert counts(tried(agents)[0]) == (3, 1, 0, 2, 0)


def test_a_node_that_cannot_be_asked_is_named_and_the_others_go_on():
    gone, other = tried(Agents([Connection("10.0.0.2:1", "10.1.0.5:80")] * 3), nodes=("gone", "node-2"))
    assert (gone.problem, gone.probes) == ("cannot be asked: no agent", 0)
    assert other.reached == 3


def test_what_was_not_tried_in_time_is_a_problem():
    class Slow(Agents):
        async def call(self, node, request):
            await asyncio.sleep(10)

    [one] = asyncio.run(Probing(Slow(), POD, 5).run(("node-2",), (WAY,), 0.05))
    assert one.problem == "only 0 of 5 were tried before the time was up"


def test_an_address_of_no_named_service_is_not_dialled():
    async def facts():
        nameless = Route("cluster-ip", "10.96.0.7", 80, "TCP", (Endpoint("10.1.0.5", 80),))
        return Facts("node-2", "dump", routes=(nameless,))

    probe = Probe(via="cluster-ip", address="10.96.0.7", port=80)
    opened = asyncio.run(Prober("node-2", "127.0.0.1", facts).open(probe))
    assert "it is not dialled from here" in opened.problem
