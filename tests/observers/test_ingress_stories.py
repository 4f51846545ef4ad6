"""An ingress that copies endpoints six seconds late, in the virtual lab: one that is asked is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
import yaml
from fake_ingress import ADMIN_PORT, PROXY_PORT
from stage import NS, first, play

from tidegate.cli.status_text import lines
from tidegate.client import VerbOptions, cut_pod, drain_pod, status_of
from tidegate.client.verify import VerifyOptions, verify_pod
from tidegate.kube import wire
from tidegate.kube.api import DEPLOYMENTS, NAMESPACES, PODS, SERVICES, Patch, Resource, Selection
from tidegate.kube.errors import KubeError
from tidegate.kube.exchange import Request
from tidegate.lab.config import Addon, Image
from tidegate.model.names import Ending
from tidegate.rehearse.addons import TIDEGATE

EDGE = Addon("edge", images=(Image("test/edge", "fake_ingress:main"),))
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
LAG_SECONDS = 6.0


def observer(**fields):
    return {
        "name": "edge",
        "kind": "http",
        "where": {"service": "edge/edge", "port": ADMIN_PORT},
        "options": {"path": "/routed?address={address}", "covers": ["ingressclass/edge"]},
        **fields,
    }


class Clients:
    """Requests through every replica of the ingress, one after another on connections of their own."""

    def __init__(self, stage):
        self.stage, self.sent, self.lost = stage, 0, []

    async def run(self):
        while True:
            for pod in (await self.stage.api.list(PODS, Selection("edge"))).items:
                await self.ask(pod["status"]["podIP"])
            await asyncio.sleep(0.02)

    async def ask(self, address):
        self.sent += 1
        try:
            status, _, body = await wire.fetch(wire.Peer(address, PROXY_PORT, "127.16.0.12", 5.0), Request("GET", "/"))
        except KubeError as error:
            status, body = 0, str(error).encode()
        if status != 200:
            self.lost.append((self.stage.now, status, body.decode()))


async def put_up(stage, replicas=2, tells_epoch=True, has_ingress=False):
    """The ingress controller, with endpoints copied."""
    labels = {"app": "edge"}
    env = {"SERVICE": f"{NS}/echo", "LAG_SECONDS": str(LAG_SECONDS), "TELLS_EPOCH": "1" if tells_epoch else "",
           "TIDEGATE_SERVER": stage.lab.config.addressing.server}  # fmt: skip
    container = {
        "name": "edge", "image": "test/edge:1", "env": [{"name": k, "value": v} for k, v in env.items()],
        "ports": [{"containerPort": PROXY_PORT}],
        "readinessProbe": {"tcpSocket": {"port": PROXY_PORT}, "periodSeconds": 1},
    }  # fmt: skip
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    meta = {"name": "edge", "namespace": "edge"}
    await stage.api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "edge"}})
    ports = [{"port": 80, "targetPort": PROXY_PORT, "protocol": "TCP"}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": labels, "ports": ports}}
    await stage.api.create(SERVICES, service)
    await stage.api.create(DEPLOYMENTS, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})
    if has_ingress:
        backend = {"service": {"name": "echo", "port": {"number": 8080}}}
        paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
        body = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "site", "namespace": NS},
                "spec": {"ingressClassName": "edge", "rules": [{"http": {"paths": paths}}]}}  # fmt: skip
        await stage.api.create(INGRESSES, body)
    await asyncio.sleep(LAG_SECONDS + 6.0)


def told(tmp_path, story, *observers, **options):
    """Play ``story(stage, clients)`` with these observers configured."""
    up = {key: options.pop(key) for key in ("replicas", "tells_epoch", "has_ingress") if key in options}
    if observers:
        file = tmp_path / "observers.yaml"
        file.write_text(yaml.safe_dump({"observers": list(observers)}))
        options["addon_options"] = (("observers", str(file)),)

    async def whole(stage):
        await put_up(stage, **up)
        clients = Clients(stage)
        running = asyncio.ensure_future(clients.run())
        try:
            return await story(stage, clients)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    return play(whole, addons=(TIDEGATE, EDGE), **options)


async def ended(stage, clients):
    """Delete one pod, by its gate: (result, seconds until SIGTERM, requests lost meanwhile and for 10 s more)."""
    clients.lost.clear()
    result, seconds = await stage.end(await first(stage))
    await asyncio.sleep(10.0)
    assert clients.sent > 100
    return result, seconds, list(clients.lost)


def test_an_ingress_that_is_asked_is_waited_for_and_nothing_is_lost_through_it(tmp_path):
    result, seconds, lost = told(tmp_path, ended, observer())
    assert (result["result"], lost) == ("verified", [])
    assert LAG_SECONDS <= seconds < LAG_SECONDS + 4.0


def test_one_that_nobody_asks_loses_requests(tmp_path):
    """The contrast: without it the test above would be too weak."""
    _, seconds, lost = told(tmp_path, ended)
    assert lost and seconds < LAG_SECONDS


def test_one_that_nobody_asks_is_named_where_an_ingress_object_says_so(tmp_path):
    result, _, lost = told(tmp_path, ended, has_ingress=True)
    assert lost
    assert result["result"] == "assumed"
    assert (
        "Ingress demo/site (class edge) routes to demo/echo, and no observer is configured for it" in result["reason"]
    )


def test_the_object_of_one_that_is_asked_leaves_the_proof_whole(tmp_path):
    result, _, lost = told(tmp_path, ended, observer(), has_ingress=True)
    assert (result["result"], lost) == ("verified", [])


def test_without_an_epoch_it_is_waited_for_too_and_the_result_is_assumed(tmp_path):
    result, seconds, lost = told(tmp_path, ended, observer(settleSeconds=2.0), tells_epoch=False)
    assert (result["result"], lost) == ("assumed", [])
    assert "no route for 2 s, and no fence" in result["reason"]
    assert seconds >= LAG_SECONDS + 2.0


@pytest.mark.parametrize("kind", ["traefik", "envoy"])
def test_one_whose_passes_may_be_torn_is_believed_at_its_second_epoch(tmp_path, kind):
    edge = {"name": "edge", "kind": kind, "where": {"service": "edge/edge", "port": ADMIN_PORT}}
    result, seconds, lost = told(tmp_path, ended, edge)
    assert (result["result"], lost) == ("verified", [])
    assert 2 * LAG_SECONDS <= seconds < 2 * LAG_SECONDS + 5.0


def nobody_answers(**fields):
    return observer(where={"service": "edge/edge", "port": 9001}, timeoutSeconds=1.0, **fields)


def test_one_that_does_not_answer_holds_to_the_deadline_and_is_named(tmp_path):
    result, seconds, lost = told(tmp_path, ended, nobody_answers())
    assert (result["result"], lost) == ("timed-out", [])
    assert [name.rpartition("-")[0].partition("-")[0] for name in result["stragglers"]] == ["edge/edge", "edge/edge"]
    assert "edge/edge-" in result["reason"] and "unreachable" in result["reason"]
    assert seconds > 30.0


def test_a_policy_of_warn_goes_on_without_it_and_says_so(tmp_path):
    result, seconds, _ = told(tmp_path, ended, nobody_answers(onUnreachable="warn"))
    assert result["result"] == "assumed" and "its policy goes on without it" in result["reason"]
    assert seconds < LAG_SECONDS


def test_an_advisory_one_never_blocks_and_what_it_has_not_let_go_of_is_said(tmp_path):
    result, seconds, _ = told(tmp_path, ended, observer(policy="advisory"))
    assert result["result"] == "assumed" and "advisory, not waited for" in result["reason"]
    assert seconds < LAG_SECONDS


def test_a_name_that_no_service_has_holds_instead_of_meaning_nobody(tmp_path):
    wrong = observer(where={"service": "edge/egde", "port": ADMIN_PORT})
    result, _, _ = told(tmp_path, ended, wrong)
    assert result["result"] == "timed-out" and "Service edge/egde has no EndpointSlice" in result["reason"]


def test_a_replica_that_comes_in_the_middle_has_to_let_go_too(tmp_path):
    async def scaled(stage, clients):
        name = await first(stage)
        await stage.delete(name)
        await asyncio.sleep(3.0)
        await stage.api.patch(DEPLOYMENTS, "edge", Patch({"spec": {"replicas": 4}}), "edge")
        await stage.gone(name)
        await asyncio.sleep(10.0)
        return stage.result(name), clients.lost

    result, lost = told(tmp_path, scaled, observer())
    assert result["result"] == "verified"
    assert [one for one in lost if "no backend" not in one[2] and one[1]] == [], (
        "a new replica has nobody for 6 s: its own"
    )


def test_label_mode_waits_for_it_too_and_a_whole_rollout_loses_nothing(tmp_path):
    async def rolled(stage, clients):
        name = await first(stage)
        report = await drain_pod(stage.client, NS, name, VerbOptions())
        await stage.ready(3)
        await asyncio.sleep(LAG_SECONDS)
        template = {"metadata": {"annotations": {"round": "2"}}}
        old = [pod["metadata"]["name"] for pod in await stage.pods()]
        await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"template": template}}), NS)
        for one in old:
            await stage.gone(one)
        await asyncio.sleep(10.0)
        return report, [stage.result(one)["result"] for one in old], clients.lost

    report, results, lost = told(tmp_path, rolled, observer())
    assert (results, lost) == (["verified"] * 3, [])
    assert report.result is Ending.VERIFIED and report.seconds > LAG_SECONDS


def test_status_names_every_replica_and_who_is_waited_for(tmp_path):
    async def looked(stage, clients):
        await stage.delete(await first(stage))
        await asyncio.sleep(3.0)
        path = "/api/v1/namespaces/tidegate-system/pods/tidegate-coordinator:15201/proxy/v1/status"
        response = await stage.client.request(Request("GET", path))
        return json.loads(await response.read())

    status = told(tmp_path, looked, observer(), has_ingress=True)
    assert [(one["kind"], one["policy"], one["problem"]) for one in status["observers"]] == [
        ("http", "required", "")
    ] * 2
    [drain] = status["drains"]
    assert {one["node"] for one in drain["stragglers"]} == {one["name"] for one in status["observers"]}
    assert drain["known"] == ["Ingress demo/site (class edge) routes to demo/echo"] and drain["suspected"] == []


def test_status_tells_who_routes_by_a_service_and_whether_anybody_asks_them(tmp_path):
    async def looked(stage, clients):
        return (await status_of(stage.client, "svc", NS, "echo")).document

    sentence = "Ingress demo/site (class edge) routes to demo/echo"
    document = told(tmp_path, looked, observer(), has_ingress=True)
    assert document["routers"] == [{"service": "demo/echo", "known": [sentence], "suspected": []}]
    assert [one["policy"] for one in document["observers"]] == ["required", "required"]
    assert f"  asked: {sentence}" in lines(document)
    document = told(tmp_path, looked, has_ingress=True)
    assert document["routers"] == [{"service": "demo/echo", "known": [], "suspected": [sentence]}]
    assert told(tmp_path, looked)["routers"] == [], "a Service that nothing mentions is routed by nodes alone"


def test_verify_goes_by_its_word_too(tmp_path):
    async def looked(stage, clients):
        name = await first(stage)
        asked = asyncio.ensure_future(cut_pod(stage.client, NS, name, VerbOptions()))
        await asyncio.sleep(4.0)
        early = await verify_pod(stage.client, NS, name, VerifyOptions(timeout_seconds=1.0))
        await asked
        return early, await verify_pod(stage.client, NS, name, VerifyOptions())

    early, late = told(tmp_path, looked, observer())
    assert early.outcome == "unknown" and any("edge/edge-" in reason for reason in early.reasons)
    assert late.outcome == "unrouted"
    assert {one.verdict for one in late.nodes} == {"no-route"} and len(late.nodes) == 5
