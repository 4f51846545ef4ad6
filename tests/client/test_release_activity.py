"""What draining revisions still do, as a release reads it: by node, by pod, by the workload's own word; None for what
cannot be told."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import msgspec
import pytest

from tidegate import vtime
from tidegate.client.release import activity
from tidegate.client.release.activity import Work, endpoints_of, never_served
from tidegate.client.release.book import Entry
from tidegate.client.release.look import Sight
from tidegate.dataplane.facts import Unreadable
from tidegate.dataplane.sockets import Quiet, Socket
from tidegate.kube.client import KubeClient
from tidegate.kube.exchange import whole
from tidegate.model import pod
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import ACTIVITY, WORK
from tidegate.observers.proxied import ProxiedAgents
from tidegate.release.record import Asked, Status
from tidegate.release.scene import REVISION_LABEL, Edition, Member, Scene, Way
from tidegate.release.spec import Rainbow, Spec


def pod_object(name, node, ip, annotations=(), ports=({"containerPort": 8080, "name": "http"},)):
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "annotations": dict(annotations)},
        "spec": {"nodeName": node, "containers": [{"name": "web", "ports": list(ports)}]},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


SERVICE = {"spec": {"ports": [{"port": 80, "targetPort": "http"}], "ipFamilies": ["IPv4"]}}


def sight_of(objects, probe=""):
    """r1 drains with these pods, r2 serves with one."""
    spec = Spec("web", "rainbow", rainbow=Rainbow("web", activity=probe))
    asked = {f"{kind}/web/{name}/1": Asked("yes") for kind, name in (("routed", "r2"), ("unrouted", "r1"))}
    status = Status(revision="r2", stable="r2", fingerprint="t2", round=1, asked=asked)
    sight = Sight(Entry("shop", "web", spec, status, 1, "7"))
    serving = pod_object("web-r2-1", "node-1", "10.0.0.99")
    sight.pods = {one["metadata"]["name"]: one for one in (*objects, serving)}
    sight.services = {"web": SERVICE}
    sight.pods_of = {"r1": [pod.decode(one) for one in objects], "r2": [pod.decode(serving)]}
    members = tuple(Member(one.name, one.uid, one.node) for one in sight.pods_of["r1"])
    old = Edition("r1", "web", "t1", len(members), members, is_base=True)
    new = Edition("r2", "web-r2", "t2", 1, (Member("web-r2-1", "uid-web-r2-1"),))
    way = Way("web", {"app": "web", REVISION_LABEL: "r2"})
    sight.scene = Scene(0.0, spec, status, "t2", 1, 1, 1, (old, new), (way,))
    return sight


class Nodes:
    """Agents whose answers are ``live`` (node -> connections "client -> pod") and who are ``blind`` for some pods."""

    def __init__(self, monkeypatch, live=(), blind=(), has_agents=True):
        self.live, self.blind, self.asked = dict(live), blind, []
        self.why = "no LISTEN socket for {}"

        async def connections(_, node, endpoints):
            self.asked.append((node, tuple(map(str, endpoints))))
            bad = [one for one in endpoints if one.address in self.blind]
            if bad:
                return Quiet(unreadable=tuple(Unreadable(self.why.format(one), node) for one in bad))
            wanted = {one.address for one in endpoints}
            sockets = [
                Socket(Endpoint(ip, 8080), Endpoint("10.9.9.9", 40_000 + number), "ESTABLISHED", 0, number)
                for ip, count in self.live.items()
                if ip in wanted
                for number in range(count)
            ]
            return Quiet(tuple(sockets))

        async def installed(client):
            return has_agents

        monkeypatch.setattr(ProxiedAgents, "connections", connections)
        monkeypatch.setattr(activity, "is_installed", installed)


async def unasked(request):
    raise AssertionError(f"{request.method} {request.path}")


def counts(sight, exchange=unasked):
    async def story():
        scene = await Work(KubeClient(exchange, "lab")).seen(sight)
        return {one.name: one.connections for edition in scene.editions for one in edition.members}, scene

    return vtime.run(story())


def test_one_question_per_node_for_all_its_pods_and_those_that_serve_are_not_asked(monkeypatch):
    pods = [pod_object(f"web-{n}", f"node-{1 + n % 2}", f"10.0.0.{n}") for n in range(1, 5)]
    nodes = Nodes(monkeypatch, {"10.0.0.1": 2, "10.0.0.2": 0, "10.0.0.3": 1, "10.0.0.99": 7})
    found, _ = counts(sight_of(pods))
    assert found == {"web-1": 2, "web-2": 0, "web-3": 1, "web-4": 0, "web-r2-1": None}
    assert nodes.asked == [
        ("node-1", ("10.0.0.2:8080", "10.0.0.4:8080")),
        ("node-2", ("10.0.0.1:8080", "10.0.0.3:8080")),
    ]


def test_a_pod_that_cannot_be_read_spoils_nobody_elses_answer(monkeypatch):
    pods = [pod_object(f"web-{n}", "node-1", f"10.0.0.{n}") for n in range(1, 4)]
    Nodes(monkeypatch, {"10.0.0.1": 1}, blind=("10.0.0.2",))
    found, _ = counts(sight_of(pods))
    assert found == {"web-1": 1, "web-2": None, "web-3": 0, "web-r2-1": None}


def test_many_pods_on_a_node_are_asked_for_in_questions_that_an_agent_takes(monkeypatch):
    pods = [pod_object(f"web-{n}", "node-1", f"10.0.{n // 100}.{n % 100 + 1}") for n in range(150)]
    nodes = Nodes(monkeypatch)
    found, _ = counts(sight_of(pods))
    assert [len(endpoints) for _, endpoints in nodes.asked] == [64, 64, 22]
    assert set(found.values()) == {0, None}


def test_without_agents_nothing_is_known_unless_the_workload_says_it_itself(monkeypatch):
    pods = [pod_object("web-1", "node-1", "10.0.0.1")]
    Nodes(monkeypatch, has_agents=False)
    assert counts(sight_of(pods))[0]["web-1"] is None

    async def exchange(request):
        return whole(200, b"idle", "text/plain")

    assert counts(sight_of(pods, "http:8080/activity"), exchange)[0]["web-1"] == 0


@pytest.mark.parametrize(("body", "count"), [((True, "idle"), 0), ((False, "3 jobs"), 1), ((None, "no answer"), None)])
def test_a_pod_that_nobody_is_connected_to_is_asked_by_the_agent_of_its_node(monkeypatch, body, count):
    probe = "http:8080/activity"
    pods = [pod_object("web-1", "node-1", "10.0.0.1", {ACTIVITY: probe}), pod_object("web-2", "node-1", "10.0.0.2")]
    Nodes(monkeypatch)

    async def call(self, node, request):
        assert (node, request.param("pod")) == ("node-1", "web-1")
        return json.dumps({"probe": probe, "idle": body[0], "detail": body[1]}).encode()

    monkeypatch.setattr(ProxiedAgents, "call", call)
    found, scene = counts(sight_of(pods, probe))
    assert found["web-1"] == count
    assert found["web-2"] is None, "the agent reads the probe on the pod: it is put there first"
    assert [one.is_probed for one in scene.editions[0].members] == [True, False]


@pytest.mark.parametrize(
    ("text", "work"),
    [
        ('queue{revision="r1"} 5\n', 5),
        ('queue{revision="r1"} 0\nqueue{revision="r2"} 4\n', 0),
        ('queue{revision="r1"} 0.5\n', 1),
        ('queue{revision="r2"} 4\n', None),
        ("queue{revision=", None),
    ],
)
def test_work_that_any_pod_can_tell_of_is_asked_of_the_newest_revision_without_agents(monkeypatch, text, work):
    Nodes(monkeypatch, has_agents=False)
    asked = []

    async def exchange(request):
        asked.append(request.path)
        return whole(200, text.encode(), "text/plain")

    _, scene = counts(sight_of([pod_object("web-1", "node-1", "10.0.0.1")], PROBE), exchange)
    assert scene.editions[0].work == work
    assert asked[0] == "/api/v1/namespaces/shop/pods/web-r2-1:9090/proxy/metrics"
    assert len(asked) == (1 if work is not None else 2), "the next one is asked where one cannot tell"


def test_where_there_are_agents_they_ask_whoever_bears_the_question(monkeypatch):
    Nodes(monkeypatch)
    asked = []

    async def call(self, node, request):
        asked.append((node, request.param("pod"), request.param("revision")))
        text = PROBE.replace("{revision}", "r1")
        return json.dumps({"probe": text, "idle": False, "detail": "queue is 5", "amount": 5}).encode()

    monkeypatch.setattr(ProxiedAgents, "call", call)
    sight = sight_of([pod_object("web-1", "node-1", "10.0.0.1")], PROBE)
    _, scene = counts(sight)
    assert (scene.editions[0].work, asked) == (None, [])
    assert [one.is_probed for one in scene.editions[1].members] == [False]
    sight = sight_of([pod_object("web-1", "node-1", "10.0.0.1")], PROBE)
    serving = pod_object("web-r2-1", "node-1", "10.0.0.99", {WORK: PROBE})
    sight.pods_of["r2"] = [pod.decode(serving)]
    _, scene = counts(sight)
    assert (scene.editions[0].work, asked) == (5, [("node-1", "web-r2-1", "r1")])
    assert [one.is_probed for one in scene.editions[1].members] == [True]


PROBE = 'metric:9090/metrics#queue{revision="{revision}"}'


def test_answers_are_kept_for_a_moment_and_who_is_busy_is_asked_less_and_less(monkeypatch):
    nodes = Nodes(monkeypatch, {"10.0.0.1": 1})
    sight = sight_of([pod_object("web-1", "node-1", "10.0.0.1")])

    async def story():
        work, loop = Work(KubeClient(unasked, "lab")), asyncio.get_running_loop()
        gaps, last = [], loop.time()
        for _ in range(600):
            before = len(nodes.asked)
            await work.seen(sight)
            if len(nodes.asked) > before:
                gaps.append(round(loop.time() - last, 1))
                last = loop.time()
            await asyncio.sleep(0.5)
        return gaps

    gaps = vtime.run(story())
    assert gaps[1] == activity.READ_SECONDS and max(gaps) <= activity.AGAIN_SECONDS_MAX + 0.5
    assert gaps[-1] > 9 and len(gaps) < 60


def test_asked_is_where_the_service_leads_and_no_port_beside_it(monkeypatch):
    ports = ({"containerPort": 8080, "name": "http"}, {"containerPort": 9090, "name": "metrics"})
    made = pod_object("web-1", "node-1", "10.0.0.1", ports=ports)
    made["status"]["podIPs"].append({"ip": "fd00::1"})
    sight = sight_of([made])
    [seen] = sight.pods_of["r1"]
    assert [str(one) for one in endpoints_of(sight, seen)] == ["10.0.0.1:8080"]
    sight.services["web"]["spec"]["ipFamilies"] = ["IPv4", "IPv6"]
    assert len(endpoints_of(sight, seen)) == 2
    spec = msgspec.structs.replace(sight.scene.spec, rainbow=Rainbow(""))
    sight.scene = replace(sight.scene, spec=spec)
    assert [str(one) for one in endpoints_of(sight, seen)] == ["10.0.0.1:*", "[fd00::1]:*"]
    sight.services["web"]["spec"]["ipFamilies"] = ["IPv4"]


def pod_status(ready, since, *states):
    return {
        "status": {
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}],
            "containerStatuses": [{"state": one} for one in states],
        }
    }


WAITING = {"waiting": {"reason": "ImagePullBackOff"}}


def running(at):
    return {"running": {"startedAt": at}}


@pytest.mark.parametrize(
    ("obj", "is_so"),
    [
        ({"status": {}}, True),
        (pod_status("False", "2026-01-01T00:00:00Z", WAITING), True),
        (pod_status("False", "2026-01-01T00:00:00Z", running("2026-01-01T00:00:05Z")), True),
        (pod_status("False", "2026-01-01T00:01:00Z", running("2026-01-01T00:00:05Z")), False),
        (pod_status("True", "2026-01-01T00:00:00Z", running("2026-01-01T00:00:05Z")), False),
        (
            pod_status(
                "False", "2026-01-01T00:01:00Z", running("2026-01-01T00:02:00Z"), running("2026-01-01T00:00:00Z")
            ),
            False,
        ),
        (pod_status("False", "", running("2026-01-01T00:00:05Z")), False),
    ],
)
def test_a_pod_served_nobody_where_what_runs_in_it_never_was_ready(obj, is_so):
    assert never_served(obj) is is_so


def test_a_deaf_pod_that_never_served_has_no_connections(monkeypatch):
    made = pod_object("web-1", "node-1", "10.0.0.1")
    made["status"] |= pod_status("False", "2026-01-01T00:00:00Z", running("2026-01-01T00:00:05Z"))["status"]
    served = pod_object("web-2", "node-1", "10.0.0.2")
    Nodes(monkeypatch, blind=("10.0.0.1", "10.0.0.2"))
    found, _ = counts(sight_of([made, served]))
    assert (found["web-1"], found["web-2"]) == (0, None)


def test_a_pod_that_nothing_runs_of_has_no_connections_where_its_node_knows_no_such_address(monkeypatch):
    """A version that cannot be pulled is given up: on real network namespaces its pods have none."""
    made = pod_object("web-1", "node-1", "10.0.0.1")
    made["status"] |= pod_status("False", "2026-01-01T00:00:00Z", WAITING)["status"]
    served = pod_object("web-2", "node-1", "10.0.0.2")
    nodes = Nodes(monkeypatch, blind=("10.0.0.1", "10.0.0.2"))
    nodes.why = "none of this node's network namespaces have {}, expected is one"
    found, _ = counts(sight_of([made, served]))
    assert (found["web-1"], found["web-2"]) == (0, None)


def test_a_pod_without_an_address_was_never_reached(monkeypatch):
    made = pod_object("web-1", "", "")
    made["status"] = {"phase": "Pending"}
    Nodes(monkeypatch)
    assert counts(sight_of([made]))[0]["web-1"] == 0
