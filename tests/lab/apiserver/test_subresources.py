"""Scale, binding, eviction, tokens, reviews, logs and proxies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tidegate.kube import wire
from tidegate.kube.api import PODS
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request, Response, whole
from tidegate.lab.apiserver.streams import Backends
from tidegate.lab.runtime.logs import LogOptions, NoLog

from .api_world import DEPLOYMENT, POD, SERVICE, World, deployment, pod, story

PDB = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


def test_scale_reads_and_writes_replicas():
    async def tell(world: World) -> None:
        await world.create(DEPLOYMENT, deployment())
        scale = await world.get(f"{DEPLOYMENT}/d/scale")
        assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 2})
        assert scale["status"] == {"replicas": 0, "selector": "app=d"}
        patched = await world.patch(f"{DEPLOYMENT}/d/scale", {"spec": {"replicas": 5}})
        assert patched["spec"]["replicas"] == 5
        scale["spec"]["replicas"] = 7
        assert (await world.ask("PUT", f"{DEPLOYMENT}/d/scale", scale)).status == 409
        del scale["metadata"]["resourceVersion"]
        await world.ask("PUT", f"{DEPLOYMENT}/d/scale", scale)
        made = await world.get(f"{DEPLOYMENT}/d")
        assert (made["spec"]["replicas"], made["metadata"]["generation"]) == (7, 3)

    story(tell)


def test_a_binding_places_a_pod_once():
    async def tell(world: World) -> None:
        await world.create(POD, pod())
        binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "node-1"}}
        await world.api.create(PODS, binding, "default", "binding")
        placed = await world.get(f"{POD}/p")
        assert (placed["spec"]["nodeName"], placed["metadata"]["generation"]) == ("node-1", 1)
        assert placed["status"]["conditions"][0]["type"] == "PodScheduled"
        try:
            await world.api.create(PODS, binding, "default", "binding")
        except ApiError as error:
            assert error.is_conflict
            assert 'pod p is already assigned to node "node-1"' in error.message
        else:
            raise AssertionError("bound twice")

    story(tell)


async def _running(world: World, name: str) -> None:
    await world.create(POD, pod(name))
    await world.schedule(name)
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await world.patch(f"{POD}/{name}/status", {"status": ready})


async def _budget(world: World, allowed: int, name: str = "b") -> None:
    await world.create(PDB, {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": "web"}}}})
    status = {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 2, "desiredHealthy": 2}
    await world.patch(f"{PDB}/{name}/status", {"status": status})


def test_an_eviction_spends_the_budget_and_then_is_refused():
    async def tell(world: World) -> None:
        await _budget(world, allowed=1)
        for name in ("a", "b"):
            await _running(world, name)
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}
        assert (await world.create(f"{POD}/a/eviction", eviction))["status"] == "Success"
        assert (await world.get(f"{POD}/a"))["metadata"]["deletionGracePeriodSeconds"] == 30
        spent = (await world.get(f"{PDB}/b"))["status"]
        assert (spent["disruptionsAllowed"], list(spent["disruptedPods"])) == (0, ["a"])
        refused = await world.ask("POST", f"{POD}/b/eviction", {"metadata": {"name": "b"}})
        assert (refused.status, refused.reason) == (429, "TooManyRequests")
        assert refused.message == "Cannot evict pod as it would violate the pod's disruption budget."
        assert refused.body["details"]["causes"][0]["reason"] == "DisruptionBudget"
        assert "retry-after" not in refused.headers

    story(tell)


def test_a_budget_the_controller_has_not_seen_refuses_for_ten_seconds():
    async def tell(world: World) -> None:
        await _running(world, "a")
        await world.create(PDB, {"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}})
        refused = await world.ask("POST", f"{POD}/a/eviction", {})
        assert (refused.status, refused.headers["retry-after"]) == (429, "10")

    story(tell)


def test_two_budgets_over_one_pod_are_an_error():
    async def tell(world: World) -> None:
        await _running(world, "a")
        for name in ("b", "c"):
            await _budget(world, 5, name)
        assert (await world.ask("POST", f"{POD}/a/eviction", {})).status == 500

    story(tell)


def test_pods_that_serve_nobody_cost_no_budget():
    async def tell(world: World) -> None:
        await _budget(world, allowed=0)
        await world.create(POD, pod("pending"))
        assert (await world.ask("POST", f"{POD}/pending/eviction", {})).status == 201

    story(tell)


def test_a_token_looks_like_a_jwt():
    async def tell(world: World) -> None:
        accounts = "/api/v1/namespaces/default/serviceaccounts"
        assert (await world.ask("POST", f"{accounts}/nosuch/token", {})).status == 404
        await world.create(accounts, {"metadata": {"name": "default"}})
        made = await world.create(f"{accounts}/default/token", {"spec": {"expirationSeconds": 600}})
        assert made["status"]["token"].startswith("eyJ")
        assert made["status"]["token"].count(".") == 2
        assert made["status"]["expirationTimestamp"] == "2026-01-01T00:10:00Z"

    story(tell)


def test_the_labs_one_user_may_do_everything():
    async def tell(world: World) -> None:
        authorization = "/apis/authorization.k8s.io/v1"
        review = await world.create(f"{authorization}/selfsubjectaccessreviews", {"spec": {}})
        assert review["status"] == {"allowed": True}
        rules = await world.create(f"{authorization}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})
        assert rules["status"]["resourceRules"][0]["verbs"] == ["*"]
        who = await world.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
        assert who["status"]["userInfo"]["username"] == "kubernetes-admin"

    story(tell)


def _logs(namespace: str, name: str, container: str, options: LogOptions) -> AsyncIterator[bytes]:
    if options.previous:
        raise NoLog(f'previous terminated container "{container}" in pod "{name}" not found')

    async def chunks() -> AsyncIterator[bytes]:
        yield f"{namespace}/{name}/{container} tail={options.tail_lines}\n".encode()

    return chunks()


def test_logs_come_from_the_kubelets():
    async def tell(world: World) -> None:
        await world.create(POD, pod())
        assert (await world.ask("GET", f"{POD}/p/log")).raw == b""
        await world.schedule("p")
        waiting = await world.ask("GET", f"{POD}/p/log")
        assert waiting.status == 400
        assert 'container "c" in pod "p" is waiting to start' in waiting.message
        started = {"containerStatuses": [{"name": "c", "state": {"running": {}}}]}
        await world.patch(f"{POD}/p/status", {"status": started})
        assert (await world.ask("GET", f"{POD}/p/log?tailLines=3")).raw == b"default/p/c tail=3\n"
        other = await world.ask("GET", f"{POD}/p/log?container=x")
        assert (other.status, other.message) == (400, "container x is not valid for pod p")
        previous = await world.ask("GET", f"{POD}/p/log?previous=true")
        assert previous.message == 'previous terminated container "c" in pod "p" not found'
        assert (await world.ask("GET", f"{POD}/q/log")).status == 404

    story(tell, Backends(logs=_logs))


async def _hello(request: Request) -> Response:
    return whole(203, f"{request.method} {request.target}".encode(), "text/plain")


def test_a_pods_proxy_asks_the_pod():
    async def tell(world: World) -> None:
        await wire.serve(_hello, "127.17.1.1", 8080)
        await world.create(POD, pod())
        missing = await world.ask("GET", f"{POD}/p:8080/proxy/")
        assert missing.status == 503
        await world.patch(f"{POD}/p/status", {"status": {"podIP": "127.17.1.1"}})
        answer = await world.ask("GET", f"{POD}/p:8080/proxy/a/b?c=d")
        assert (answer.status, answer.raw) == (203, b"GET /a/b?c=d")
        assert (await world.ask("GET", f"{POD}/p:8080/proxy/")).raw == b"GET /"
        refused = await world.ask("GET", f"{POD}/p:8081/proxy/")
        assert (refused.status, refused.reason) == (503, "ServiceUnavailable")

    story(tell)


def test_a_services_proxy_asks_a_ready_endpoint():
    async def tell(world: World) -> None:
        await wire.serve(_hello, "127.17.1.1", 8080)
        await world.create(
            SERVICE, {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80, "targetPort": 8080}]}}
        )
        assert (await world.ask("GET", f"{SERVICE}/web:80/proxy/x")).status == 503
        endpoints = [
            {"addresses": ["127.17.9.9"], "conditions": {"ready": False}},
            {"addresses": ["127.17.1.1"], "conditions": {"ready": True}},
        ]
        metadata = {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}
        made = {
            "addressType": "IPv4",
            "metadata": metadata,
            "endpoints": endpoints,
            "ports": [{"name": "", "port": 8080}],
        }
        await world.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", made)
        assert (await world.ask("GET", f"{SERVICE}/web:80/proxy/x")).raw == b"GET /x"
        await asyncio.sleep(0)

    story(tell)
