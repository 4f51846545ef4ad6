"""ingress-nginx's list of backends gives routes and never a fence; what was listed a moment ago is routed still."""

from __future__ import annotations

import asyncio
import json

import pytest

from tidegate import vtime
from tidegate.dataplane import ingress_nginx
from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import whole
from tidegate.model.endpoint import Endpoint
from tidegate.observers.external import Question, Replica, Spec, Where
from tidegate.observers.ingress_nginx import LAG_SECONDS, IngressNginx

FIRST, SECOND = Endpoint("10.244.1.11"), Endpoint("10.244.2.12")
QUESTION = Question((FIRST, SECOND), "main", None, 2.0)


def backend(name, *addresses, **fields):
    """One entry as types.go writes it: ports are text, empty lists are left out."""
    servers = [{"address": one, "port": "8080", "target": {"kind": "Pod", "name": f"p-{one}"}} for one in addresses]
    return {
        "name": name,
        "service": {"metadata": {}, "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9"}, "status": {}},
        "port": 8080,
        "sslPassthrough": False,
        **({"endpoints": servers} if servers else {}),
        "sessionAffinityConfig": {"name": "", "mode": "", "cookieSessionAffinity": {"name": ""}},
        "upstreamHashByConfig": {"upstream-hash-by-subset-size": 3},
        "noServer": False,
        "trafficShapingPolicy": {"weight": 0, "weightTotal": 0, "header": "", "headerValue": ""},
        **fields,
    }


DEFAULT = {"name": "upstream-default-backend", "port": 0, "endpoints": [{"address": "127.0.0.1", "port": "8181"}]}
LISTED = [backend("demo-echo-8080", "10.244.1.11", "10.244.2.12"), DEFAULT]


def parsed(backends, **options):
    return ingress_nginx.parse(json.dumps(backends), **options)


def test_every_server_of_every_backend_is_a_route():
    facts = parsed(LISTED)
    assert not facts.unreadable and facts.routes_to(FIRST) and facts.routes_to(SECOND)
    assert parsed([backend("demo-canary-80", "10.244.1.11", noServer=True)]).routes_to(FIRST)


def test_a_backend_without_servers_is_none():
    facts = parsed([backend("demo-echo-8080"), DEFAULT])
    assert not facts.unreadable and not facts.routes_to(FIRST)


def test_the_fence_is_not_believed_for_its_workers_may_be_behind_what_is_listed():
    fence = backend("tidegate-system-tidegate-fence-main-fence", "198.18.0.1")
    assert parsed([*LISTED, fence]).fence == ()


def test_an_external_name_is_unreadable_unless_told_to_be_ignored():
    outside = backend("demo-partner-80", "api.example.com", service={"spec": {"type": "ExternalName"}})
    assert "demo-partner-80" in str(parsed([outside, DEFAULT]).unreadable[0])
    assert not parsed([outside, DEFAULT], ignore_names=True).unreadable


@pytest.mark.parametrize("body", ["", "null", "{}", "[]", "[1]", '[{"endpoints": []}]', "<html>", '[{"name": "x"'])
def test_garbage_is_unreadable(body):
    assert ingress_nginx.parse(body).unreadable


@pytest.mark.parametrize("server", [("web", "80"), ("10.0.0.1", "http"), ("10.0.0.1", "0"), ("", "80")])
def test_a_server_that_is_no_address_is_unreadable(server):
    entry = {"name": "x", "endpoints": [{"address": server[0], "port": server[1]}]}
    assert parsed([entry, DEFAULT], ignore_names=True).unreadable


def test_brackets_of_an_ipv6_address_are_beside_the_point():
    assert parsed([backend("a", "[fd00::1]"), backend("b", "fd00::2")]).routes_to(Endpoint("fd00::1", 8080))


def test_what_was_listed_within_its_workers_lag_is_routed_still():
    async def story():
        answers = [LISTED]

        async def exchange(request):
            assert request.path == "/configuration/backends"
            return whole(200, json.dumps(answers[-1]).encode())

        async with wire.serving(exchange, "127.0.0.1") as server:
            observer = IngressNginx(Spec("x", Where(addresses=("127.0.0.1:1",)), {}, "$"))
            replica = Replica("r", f"127.0.0.1:{server.port}")
            assert (await observer.ask(replica, QUESTION)).routes_to(FIRST)
            answers.append([backend("demo-echo-8080", "10.244.2.12"), DEFAULT])
            early = await observer.ask(replica, QUESTION)
            await asyncio.sleep(LAG_SECONDS + 0.01)
            return early, await observer.ask(replica, QUESTION)

    early, late = vtime.run(story())
    assert "listed a moment ago" in early.routes_to(FIRST)[0].via and not late.routes_to(FIRST)
    assert late.routes_to(SECOND)


def test_another_status_is_no_answer():
    async def story():
        async def exchange(request):
            return whole(404, b"")

        async with wire.serving(exchange, "127.0.0.1") as server:
            observer = IngressNginx(Spec("x", Where(addresses=("127.0.0.1:1",)), {}, "$"))
            with pytest.raises(Unreachable, match="404"):
                await observer.ask(Replica("r", f"127.0.0.1:{server.port}"), QUESTION)

    vtime.run(story())
