"""The last endpoint of a node, and the last of all: under load through a load balancer that asks health check ports.

Judged by every request, by the kernels' journal (``play``), and by when the balancer was told.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from scene import NODES as ADDRESSES
from scene import play
from stage import NS, deployment, first, is_ready, node_of

from tidegate.client import VerbOptions, drain_pod
from tidegate.kube.api import DEPLOYMENTS, PODS, SERVICES, Patch, Resource
from tidegate.rehearse.balancer import Backends, Balancer

DAEMONSETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
LOCAL = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}


class Front:
    """Clients of a load balancer, one request on each connection, all accounted for."""

    def __init__(self, stage, **balancing):
        self.stage, self.balancing = stage, balancing
        self.sent, self.lost = 0, []
        self.balancer = None

    @contextlib.asynccontextmanager
    async def running(self, **spec):
        await self.stage.api.patch(SERVICES, "echo", Patch({"spec": {**LOCAL, **spec}}), NS)
        made = (await self.stage.api.get(SERVICES, "echo", NS))["spec"]
        backends = Backends(ADDRESSES, made["ports"][0]["nodePort"], made.get("healthCheckNodePort", 0))
        await asyncio.sleep(2.5)
        self.balancer = Balancer(backends, **self.balancing)
        tasks = [asyncio.create_task(self.balancer.run())]
        await asyncio.sleep(5)
        tasks += [asyncio.create_task(self._client(f"127.99.0.{index}")) for index in range(1, 7)]
        await asyncio.sleep(1)
        try:
            yield self
            await asyncio.sleep(3)
        finally:
            for task in tasks:
                task.cancel()
        assert self.sent > 100

    async def _client(self, source):
        while True:
            self.sent += 1
            try:
                to = self.balancer.pick()
                if to is None:
                    raise ConnectionRefusedError("no healthy node")
                reader, writer = await asyncio.open_connection(*to, local_addr=(source, 0))
                writer.write(b"GET /sleep?ms=30 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = await asyncio.wait_for(reader.read(), 5)
                writer.close()
                if not answer.startswith(b"HTTP/1.1 200"):
                    self.lost.append((self.stage.now, answer[:40]))
            except (OSError, TimeoutError) as error:
                self.lost.append((self.stage.now, repr(error)))
            await asyncio.sleep(0.05)

    def told_at(self, node):
        """When the balancer first heard 503 from the node."""
        return next((at for at, name, status in self.balancer.statuses if (name, status) == (node, 503)), None)


async def cordon_all_but(stage, *nodes):
    from tidegate.kube.api import NODES

    for node in sorted(ADDRESSES):
        await stage.api.patch(NODES, node, Patch({"spec": {"unschedulable": node not in nodes or None}}))


async def alone_on_its_node(stage):
    """A pod that is the only one on its node."""
    by_node = {}
    for pod in await stage.pods():
        by_node.setdefault(pod["spec"]["nodeName"], []).append(pod["metadata"]["name"])
    return min(names[0] for names in by_node.values() if len(names) == 1)


def test_a_pod_beside_another_on_its_node_is_verified_in_a_second():
    async def story(stage):
        async with Front(stage).running() as front:
            by_node = {}
            for pod in await stage.pods():
                by_node.setdefault(pod["spec"]["nodeName"], []).append(pod["metadata"]["name"])
            name = min(names[0] for names in by_node.values() if len(names) > 1)
            result, seconds = await stage.end(name)
            assert (result["result"], seconds < 1.5, front.lost) == ("verified", True, [])

    play(story, deployment(replicas=6))


@pytest.mark.parametrize("seed", range(3))
def test_the_last_endpoint_of_a_node_goes_when_its_health_port_has_refused_for_the_settle_time(seed):
    async def story(stage):
        async with Front(stage).running() as front:
            name = await alone_on_its_node(stage)
            node = await node_of(stage, name)
            await cordon_all_but(stage, *(one for one in ADDRESSES if one != node))
            began = stage.now
            result, seconds = await stage.end(name)
            assert result["result"] == "assumed"
            assert f"demo/echo on {node} assumed: health check port" in result["reason"]
            assert "has answered 503 for 15 s" in result["reason"]
            told_at = front.told_at(node)
            assert told_at is not None and told_at - began < 3, "the node's own port turned the balancer away"
            assert 15 < seconds < 18.5
            assert node not in front.balancer.healthy
        assert front.lost == []

    play(story, seed=seed)


def test_with_a_grace_of_thirty_there_is_just_time_for_it():
    async def story(stage):
        async with Front(stage).running() as front:
            name = await alone_on_its_node(stage)
            node = await node_of(stage, name)
            await cordon_all_but(stage, *(one for one in ADDRESSES if one != node))
            result, _ = await stage.end(name)
            assert result["result"] == "assumed"
        assert front.lost == []

    play(story, deployment(grace=30))


def test_a_health_port_that_does_not_answer_or_still_says_yes_is_waited_for_and_named():
    """The proxy is frozen: load balancers hear nothing, and the kernel goes on sending to the pod."""

    async def story(stage):
        async with Front(stage).running() as front:
            name = await alone_on_its_node(stage)
            node = await node_of(stage, name)
            await cordon_all_but(stage, *(one for one in ADDRESSES if one != node))
            stage.fault("proxy-freeze", node, 300)
            result, _ = await stage.end(name)
            assert result["result"] == "timed-out"
            assert f"demo/echo on {node}" in result["stragglers"] and node in result["stragglers"]
            assert "health check port" in result["reason"]
            assert front.told_at(node) is None

    play(story, deployment(grace=30))


def test_a_replacement_on_the_same_node_makes_it_a_proof_again():
    async def story(stage):
        async with Front(stage).running() as front:
            name = await alone_on_its_node(stage)
            node = await node_of(stage, name)
            await cordon_all_but(stage, node)
            result, seconds = await stage.end(name)
            assert result["result"] == "verified"
            assert seconds < 10
            assert front.lost == []

    play(story)


def test_without_a_health_port_nobody_is_told_and_it_is_held():
    """A NodePort Service under Local: clients name the node themselves, no load balancer hears of it."""

    async def story(stage):
        async with Front(stage).running(type="NodePort"):
            name = await alone_on_its_node(stage)
            node = await node_of(stage, name)
            await cordon_all_but(stage, *(one for one in ADDRESSES if one != node))
            result, _ = await stage.end(name)
            assert result["result"] == "timed-out"
            assert f"no other endpoint of demo/echo is ready on {node} (traffic policy Local)" in result["reason"]

    play(story, deployment(grace=30))


def test_clients_on_the_node_have_nobody_else_under_an_internal_local_policy():
    async def story(stage):
        async with Front(stage).running(internalTrafficPolicy="Local"):
            name = await alone_on_its_node(stage)
            node = await node_of(stage, name)
            await cordon_all_but(stage, *(one for one in ADDRESSES if one != node))
            result, _ = await stage.end(name)
            assert result["result"] == "timed-out" and "traffic policy Local" in result["reason"]

    play(story, deployment(grace=30))


def test_a_balancer_slower_than_the_settle_time_is_why_it_is_only_assumed():
    async def story(stage):
        async with Front(stage, interval_seconds=10.0, failures=3).running() as front:
            name = await alone_on_its_node(stage)
            node = await node_of(stage, name)
            await cordon_all_but(stage, *(one for one in ADDRESSES if one != node))
            result, _ = await stage.end(name)
            await asyncio.sleep(5)
            assert result["result"] == "assumed"
            assert front.lost, "it goes on sending to a node without an endpoint"

    play(story)


def test_by_labels_the_last_endpoint_of_a_node_is_refused_and_nothing_is_changed():
    async def story(stage):
        async with Front(stage).running() as front:
            name = await alone_on_its_node(stage)
            node = await node_of(stage, name)
            before = (await stage.api.get(PODS, name, NS))["metadata"]["labels"]
            made = await drain_pod(stage.client, NS, name, VerbOptions(seed=0, replace=False))
            assert made.result.value == "refused" and f"on {node}" in made.reason, made
            assert (await stage.api.get(PODS, name, NS))["metadata"]["labels"] == before
            assert front.lost == []

    play(story, deployment(gate=False))


# --- the last of all ---


def test_the_last_endpoint_of_all_is_held_for_its_replacement_under_load():
    async def story(stage):
        async with Front(stage).running(externalTrafficPolicy="Cluster") as front:
            result, seconds = await stage.end(await first(stage))
            assert result["result"] == "verified" and seconds > 1
            assert front.lost == []

    play(story, deployment(replicas=1))


def test_the_last_endpoint_of_all_whose_replacement_never_comes_is_answered_at_the_deadline():
    async def story(stage):
        async with Front(stage).running(externalTrafficPolicy="Cluster") as front:
            await cordon_all_but(stage)
            name = await first(stage)
            told = asyncio.create_task(stage.end(name))
            await asyncio.sleep(17)
            assert front.lost == [], "it serves for as long as it is held"
            result, seconds = await told
            assert result["result"] == "timed-out" and "last endpoint" in result["reason"]
            assert 16.9 < seconds < 18.5

    play(story, deployment(replicas=1, grace=30))


def daemonset(max_surge):
    made = deployment()
    rolling = {"maxSurge": max_surge, "maxUnavailable": 0 if max_surge else 1}
    made["kind"] = "DaemonSet"
    made["spec"].pop("replicas")
    made["spec"]["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
    return made


async def under_a_daemonset(stage, max_surge):
    """The Deployment of the stage gives way to a DaemonSet of the same pods."""
    await stage.scale(0)
    for pod in await stage.pods():
        await stage.gone(pod["metadata"]["name"])
    await stage.api.delete(DEPLOYMENTS, "echo", NS)
    await stage.api.create(DAEMONSETS, daemonset(max_surge))
    await stage.ready(3)


async def roll(stage, resource=DAEMONSETS):
    old = sorted(pod["metadata"]["name"] for pod in await stage.pods())
    template = {"spec": {"template": {"metadata": {"annotations": {"rolled": "yes"}}}}}
    await stage.api.patch(resource, "echo", Patch(template), NS)
    for name in old:
        await stage.gone(name, within=300)
    return [stage.result(name) or {"result": "bypassed", "reason": "no record"} for name in old]


@pytest.mark.parametrize("max_surge", [0, 1])
def test_a_daemonset_rolls_under_local_without_a_loss_and_with_surge_it_is_proven(max_surge):
    async def story(stage):
        await under_a_daemonset(stage, max_surge)
        async with Front(stage).running() as front:
            results = await roll(stage)
            assert [one["result"] for one in results] == ["verified" if max_surge else "assumed"] * 3, results
            assert front.lost == []
            told = [node for node in ADDRESSES if front.told_at(node) is not None]
            assert told == ([] if max_surge else sorted(ADDRESSES)), "with surge no node is ever without"

    play(story, limit=900)


def test_a_daemonset_of_one_node_is_answered_at_once_with_the_reason():
    async def story(stage):
        await under_a_daemonset(stage, 0)
        await stage.api.patch(
            DAEMONSETS, "echo",
            Patch({"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": "node-2"}}}}}), NS,
        )  # fmt: skip
        for _ in range(900):
            pods = await stage.pods()
            if len(pods) == 1 and is_ready(pods[0]) and pods[0]["spec"].get("nodeSelector"):
                break
            await asyncio.sleep(0.2)
        await asyncio.sleep(2.5)
        async with Front(stage).running(externalTrafficPolicy="Cluster"):
            result, seconds = await stage.end(await first(stage))
            assert result["result"] == "bypassed" and seconds < 0.5
            assert "last endpoint of demo/echo: DaemonSet" in result["reason"]
            assert "makes the next pod only when this one is gone" in result["reason"]

    play(story, limit=900)


def test_recreate_is_answered_at_once_and_what_it_loses_is_its_strategys():
    manifest = deployment()
    manifest["spec"]["strategy"] = {"type": "Recreate"}

    async def story(stage):
        async with Front(stage).running(externalTrafficPolicy="Cluster") as front:
            began = stage.now
            results = await roll(stage, DEPLOYMENTS)
            assert {one["result"] for one in results} == {"bypassed"}, results
            assert all("strategy Recreate" in one["reason"] for one in results)
            assert stage.now - began < 5
            await stage.ready(3)
            assert front.lost, "between the last of the old and the first of the new nobody serves"

    play(story, manifest)


def test_recreate_of_one_among_other_endpoints_loses_nothing():
    """The Service has a second Deployment's pods: theirs take over, so it is proven like any."""
    other = deployment(replicas=2)
    other["metadata"]["name"] = "echo-too"
    other["spec"]["selector"]["matchLabels"] = {"app": "echo", "of": "too"}
    other["spec"]["template"]["metadata"]["labels"] = {"app": "echo", "of": "too"}
    manifest = deployment(replicas=1)
    manifest["spec"]["strategy"] = {"type": "Recreate"}
    manifest["spec"]["selector"]["matchLabels"] = {"app": "echo", "of": "one"}
    manifest["spec"]["template"]["metadata"]["labels"] = {"app": "echo", "of": "one"}

    async def story(stage):
        await stage.api.create(DEPLOYMENTS, other)
        await stage.ready(3)
        name = next(pod["metadata"]["name"] for pod in await stage.pods() if pod["metadata"]["labels"]["of"] == "one")
        async with Front(stage).running(externalTrafficPolicy="Cluster") as front:
            result, _ = await stage.end(name)
            assert result["result"] == "verified"
            assert front.lost == []

    play(story, manifest)
