"""Whom the coordinator asks beside nodes, and which of their answers count for which drain."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.agent.externals import Externals
from tidegate.agent.suspicion import Suspicion
from tidegate.dataplane.facts import Facts
from tidegate.drain.fence import FenceWrite
from tidegate.drain.state import Mode
from tidegate.engine.flights import Flight
from tidegate.kube.api import SERVICES, Listing
from tidegate.kube.errors import ApiError, Unreachable
from tidegate.kube.reflector import Reflector
from tidegate.model import pod as pods
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers.config import Configured
from tidegate.observers.external import Fencing, Where, replicas_of
from tidegate.observers.standing import Terms

POD, OTHER = Endpoint("10.0.0.1"), Endpoint("10.0.0.2")
EPOCH = Epoch("main", 5)


def edge_slice(name="edge-1", service="edge", pod="a", ip="10.9.0.1"):
    metadata = {"name": name, "namespace": "edge", "labels": {"kubernetes.io/service-name": service}}
    endpoint = {"addresses": [ip], "conditions": {}, "targetRef": {"kind": "Pod", "name": pod, "uid": pod}}
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": [endpoint], "ports": [{"port": 80}]}


class Edge:
    """An observer that says it is fenced and has no route, after ``seconds``."""

    fencing, covers = Fencing.SINGLE, ()

    def __init__(self):
        self.asked, self.seconds, self.fails = [], 0.0, ""

    def replicas(self, slices):
        return replicas_of(Where("edge/edge", 80), slices)

    async def ask(self, replica, question):
        self.asked.append((replica.name, question.endpoints))
        await asyncio.sleep(self.seconds)
        if self.fails:
            raise Unreachable(self.fails)
        return Facts(replica.name, "d", fence=(EPOCH,))


class Api:
    def __init__(self, *items):
        self.items = list(items)

    async def list(self, resource, select=None, resource_version=""):
        return Listing(self.items, "1")


def flight(*endpoints, sent_at=0.0):
    made = Flight("u", "demo", "p", endpoints or (POD,), Mode.GATE, "r", 0.0, 0.0)
    made.write = FenceWrite(EPOCH, sent_at)
    return made


def told(story):
    """Play ``story(externals, edge)`` with one replica in the slices."""

    async def whole():
        edge = Edge()
        configured = Configured("edge", "ours", edge, Terms(Fencing.SINGLE), 2.0, "edge/edge")
        externals = Externals((configured,), "main", lambda name: None)
        externals.enumerate()
        externals.saw_slice(None, edge_slice())
        return await story(externals, edge)

    return vtime.run(whole(), limit_seconds=60)


def verdicts(externals, one):
    return {view.node: view.verdict for view in externals.views(one)}


def test_every_replica_is_asked_once_for_all_drains_together():
    async def story(externals, edge):
        externals.set_endpoints((POD, OTHER))
        await asyncio.sleep(0.1)
        assert edge.asked == [("a", (POD, OTHER))]
        assert verdicts(externals, flight()) == verdicts(externals, flight(OTHER)) == {"edge/a": "confirmed"}

    told(story)


@pytest.mark.parametrize(
    ("ports", "verdict"),
    [([{"port": 80}], "confirmed"), ([{"port": 80}, {"port": 53, "protocol": "UDP"}], "assumed"), (None, "assumed")],
    ids=["tcp", "udp", "not-known"],
)
def test_a_new_connection_tells_nothing_of_datagrams_that_go_on_to_the_pod(ports, verdict):
    """Flows of UDP keep their endpoint in conntrack after its rule is gone: only who reads conntrack sees them."""

    async def story():
        terms = Terms(Fencing.SINGLE, routes_unread="atomic")
        configured = Configured("edge", "behavioural", Edge(), terms, 2.0, "edge/edge")
        services = {} if ports is None else {("demo", "web"): {"spec": {"ports": ports}}}
        externals = Externals((configured,), "main", lambda name: None, services)
        externals.saw_slice(None, edge_slice())
        externals.set_endpoints((POD,), ("demo/web",))
        await asyncio.sleep(0.1)
        one = flight()
        one.seen = ("demo/web",)
        assert verdicts(externals, one) == {"edge/a": verdict}

    vtime.run(story(), limit_seconds=60)


def test_an_answer_that_was_asked_for_before_the_epoch_counts_for_nothing():
    async def story(externals, edge):
        externals.set_endpoints((POD,))
        await asyncio.sleep(0.1)
        one = flight(sent_at=asyncio.get_running_loop().time())
        assert verdicts(externals, one) == {"edge/a": "pending"}
        await asyncio.sleep(0.6)
        assert verdicts(externals, one) == {"edge/a": "confirmed"}

    told(story)


def test_an_answer_to_a_narrower_question_says_nothing_about_the_rest():
    async def story(externals, edge):
        externals.set_endpoints((POD,))
        await asyncio.sleep(0.1)
        assert verdicts(externals, flight(POD, OTHER)) == {"edge/a": "pending"}

    told(story)


def test_the_last_look_lists_replicas_that_no_watch_has_shown_and_asks_everybody_anew():
    async def story(externals, edge):
        externals.set_endpoints((POD,))
        await asyncio.sleep(0.1)
        edge.asked.clear()
        assert await externals.list_now(Api(edge_slice(), edge_slice("edge-2", pod="b", ip="10.9.0.2")))
        await externals.ask_all_now()
        assert {name for name, _ in edge.asked} == {"a", "b"}
        assert verdicts(externals, flight()) == {"edge/a": "confirmed", "edge/b": "confirmed"}
        assert await externals.list_now(Api(edge_slice()))
        assert externals.names == ("edge/a",), "who is gone has nothing to say"

    told(story)


def test_a_slice_that_is_given_to_another_service_takes_its_replicas_along():
    async def story(externals, edge):
        externals.saw_slice(edge_slice(), edge_slice(service="other"))
        assert externals.names == ("edge/(no replica)",)
        [view] = externals.views(flight())
        assert view.verdict == "unreachable" and "has no EndpointSlice" in view.detail

    told(story)


def test_one_that_takes_too_long_is_unreachable_and_named():
    async def story(externals, edge):
        edge.seconds = 3.0
        externals.set_endpoints((POD,))
        await asyncio.sleep(2.1)
        [view] = externals.views(flight())
        assert (view.node, view.verdict, view.detail) == ("edge/a", "unreachable", "10.9.0.1:80: no answer within 2 s")
        assert externals.is_behind(flight())

    told(story)


def test_what_a_third_partys_observer_raises_blocks_and_is_told():
    async def story(externals, edge):
        async def broken(replica, question):
            raise ZeroDivisionError("oh")

        edge.ask = broken
        externals.set_endpoints((POD,))
        await asyncio.sleep(0.1)
        [view] = externals.views(flight())
        assert (view.verdict, view.detail) == ("unreachable", "ZeroDivisionError: oh")

    told(story)


class Weather:
    """An API of which some resources cannot be listed."""

    def __init__(self, code):
        self.code = code

    async def list(self, resource, select=None, resource_version=""):
        if resource.plural == "ingresses":
            raise ApiError(self.code, "", "ingresses is forbidden")
        raise ApiError(404, "NotFound", "the server could not find the requested resource")


def suspected(code):
    async def story():
        api = Weather(code)
        suspicion = Suspicion(api, Reflector(api, SERVICES), lambda: None)
        one = flight()
        container = {"name": "app"}
        metadata = {"name": "p", "namespace": "demo", "uid": "u"}
        one.pod = pods.decode({"kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})
        assert suspicion.sentences(one, ()) == ("what else may route to it was not listed yet",)
        await suspicion.list_now()
        return suspicion.sentences(one, ())

    return vtime.run(story(), limit_seconds=60)


def test_what_may_not_be_listed_stays_in_doubt():
    [sentence] = suspected(403)
    assert "ingresses.networking.k8s.io cannot be listed" in sentence and "forbidden" in sentence


def test_kinds_that_the_cluster_does_not_have_are_nobody():
    assert suspected(404) == ()
