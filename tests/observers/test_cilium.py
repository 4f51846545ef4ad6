"""Cilium's list of services: who is selected, in which state, and that nothing else reads as let go.

Written after its source (api/v1/models, pkg/loadbalancer), not after a dump: no Cilium was at hand.
"""

from __future__ import annotations

import json

import pytest

from tidegate import vtime
from tidegate.dataplane import cilium
from tidegate.kube.errors import ApiError, Unreachable
from tidegate.model.endpoint import Endpoint
from tidegate.observers import config
from tidegate.observers.cilium import DUMP_BYTES_MAX, Cilium
from tidegate.observers.external import Bound, Question, Replica, Spec, Where

POD, OTHER = Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.2", 8080)
QUESTION = Question((POD,), "main", None, 2.0)


def service(*backends, front=("10.96.0.9", 80, "TCP"), name="web", kind="ClusterIP"):
    addresses = [{"ip": ip, "port": port, "state": state, "protocol": "TCP"} for ip, port, state in backends]
    spec = {
        "id": 3, "frontend-address": {"ip": front[0], "port": front[1], "protocol": front[2], "scope": "external"},
        "backend-addresses": addresses, "flags": {"name": name, "namespace": "demo", "type": kind},
    }  # fmt: skip
    return {"spec": spec, "status": {"realized": spec}}


def facts(*services):
    return cilium.parse(json.dumps(services))


@pytest.mark.parametrize(
    ("state", "is_routed"),
    [("active", True), ("", True), ("quarantined", True), ("terminating", False), ("maintenance", False)],
)
def test_beside_an_active_backend_a_state_decides(state, is_routed):
    found = facts(service(("10.0.0.1", 8080, state), ("10.0.0.2", 8080, "active")))
    assert (
        bool(found.routes_to(POD)) is is_routed and found.routes_to(OTHER) and not found.unreadable and not found.fence
    )


def test_without_an_active_one_the_terminating_are_selected():
    assert facts(service(("10.0.0.1", 8080, "terminating"), ("10.0.0.2", 8080, "maintenance"))).routes_to(POD)


def test_a_frontend_is_judged_by_itself_and_its_service_is_told():
    found = facts(
        service(("10.0.0.1", 8080, "terminating"), ("10.0.0.2", 8080, "active")),
        service(("10.0.0.1", 8080, "terminating"), front=("0.0.0.0", 30080, "TCP"), kind="NodePort"),
    )
    [route] = found.routes_to(POD)
    assert (route.service, route.port) == ("demo/web", 30080)


def test_an_absent_backend_is_no_route_and_another_clusters_address_is_one():
    assert not facts(service(("10.0.0.2", 8080, "active"))).routes_to(POD)
    assert facts(service(("10.0.0.1@2", 8080, "active"))).routes_to(POD)


def test_a_frontend_of_any_protocol_leads_there_by_both():
    found = facts(service(("10.0.0.1", 8080, "active"), front=("10.96.0.9", 80, "ANY")))
    assert found.routes_to(Endpoint("10.0.0.1", 8080, "UDP")) and found.routes_to(POD)


@pytest.mark.parametrize(
    "dump",
    [
        "", "[]", "{}", "null", "[{}]", '[{"spec": {}}]', "Error: cannot connect",
        json.dumps([{"spec": service()["spec"]}]), json.dumps([{"spec": service()["spec"], "status": {}}]),
        json.dumps([service(("10.0.0.1", 8080, "resting"))]), json.dumps([service(("pod", 8080, "active"))]),
        json.dumps([service(("10.0.0.1", 0, "active"))]), json.dumps([service(front=("10.96.0.9", 80, "ICMP"))]),
        json.dumps([service(("10.0.0.2", 8080, "active"))])[:-20],
    ],
)  # fmt: skip
def test_anything_else_is_unreadable(dump):
    assert cilium.parse(dump).unreadable


class Client:
    """The API server's exec: (code, output), or an error."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    async def execute(self, path, container, command, bytes_max):
        self.asked.append((path, container, command, bytes_max))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def observer(**options):
    return Cilium(Spec("c", Where("kube-system/hubble-peer", 4244), options, "$"))


def asked(answer):
    kind, client = observer(), Client(answer)
    assert isinstance(kind, Bound)
    kind.bind(client)
    return vtime.run(kind.ask(Replica("cilium-x", "10.1.1.1:4244"), QUESTION)), client


def test_the_agent_is_asked_in_its_own_pod():
    found, client = asked((0, json.dumps([service(("10.0.0.1", 8080, "active"))]).encode()))
    assert found.routes_to(POD)
    path = "/api/v1/namespaces/kube-system/pods/cilium-x/exec"
    assert client.asked == [(path, "cilium-agent", ("cilium-dbg", "service", "list", "-o", "json"), DUMP_BYTES_MAX)]


def test_a_command_that_fails_is_unreadable_and_one_that_may_not_run_is_no_answer():
    found, _ = asked((1, b"Cannot get services list"))
    assert "exit code 1: Cannot get services list" in str(found.unreadable[0])
    with pytest.raises(ApiError, match="may not"):
        asked(ApiError(403, "Forbidden", "you may not"))
    with pytest.raises(Unreachable, match="no API client"):
        vtime.run(observer().ask(Replica("x", ""), QUESTION))


@pytest.mark.parametrize(
    "text", ["where: {addresses: ['1.1.1.1:1']}", "where: {service: a/b, port: 1}, options: {command: []}"]
)
def test_what_cannot_be_is_said_before_anything_boots(text):
    with pytest.raises(config.ConfigError, match=r"observers\[0\]"):
        config.parse(f"observers: [{{name: c, kind: cilium, {text}}}]")
