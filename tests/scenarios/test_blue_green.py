"""Story 3, two versions behind one Service: the selector goes 4.1, 4.2, 4.1 by hand, under requests, and ``status``
says at each moment which nodes still route to which version."""

from __future__ import annotations

import asyncio

from scene import NODES, ask, play
from stage import NS, deployment

from tidegate.client.status import Subject, follow_status, status_of
from tidegate.kube.api import DEPLOYMENTS, SERVICES, Patch

VERSIONS = ("4.1", "4.2")


def release(version):
    made = deployment(replicas=2)
    labels = {"app": "biz1", "zone": "prod", "version": version}
    made["metadata"]["name"] = f"biz1-{version.replace('.', '')}"
    made["spec"]["selector"] = {"matchLabels": labels}
    made["spec"]["template"]["metadata"]["labels"] = labels
    return made


async def begin(stage):
    spec = {"selector": {"app": "biz1", "zone": "prod"}, "ports": [{"name": "http", "port": 8080, "targetPort": 8080}]}
    meta = {"name": "biz1", "namespace": NS}
    await stage.api.create(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    for version in VERSIONS:
        await stage.api.create(DEPLOYMENTS, release(version))
    await stage.ready(7)


async def select(stage, version):
    await stage.api.patch(SERVICES, "biz1", Patch({"spec": {"selector": {"version": version}}}), NS)


def by_node(document):
    """Node -> the versions it sends the Service's new connections to."""
    nodes = document["services"][0]["nodes"]
    return {node["node"]: tuple(one["version"] for one in node["revisions"]) for node in nodes}


async def answered(stage, source):
    """Whether a request from ``source`` through the Service gets its whole answer."""
    reader, writer = await ask(stage, source=source, service="biz1")
    head = await reader.readline()
    writer.close()
    return b"200" in head


async def requests(stage, lost):
    """One request after the other from every node, until cancelled; ``lost`` counts those without an answer."""
    while True:
        for node in NODES:
            try:
                if not await answered(stage, node):
                    lost.append(node)
            except OSError:
                lost.append(node)
        await asyncio.sleep(0.05)


def test_switching_the_selector_there_and_back_loses_nothing_and_status_tells_each_node():
    async def story(stage):
        await begin(stage)
        lost, told = [], []
        load = asyncio.create_task(requests(stage, lost))
        first = by_node((await status_of(stage.client, "svc", NS, "biz1")).document)
        for version, slow in (("4.1", "node-1"), ("4.2", "node-2"), ("4.1", "node-3")):
            stage.fault("proxy-freeze", slow, 4)
            await select(stage, version)
            await asyncio.sleep(2)
            midst = by_node((await status_of(stage.client, "svc", NS, "biz1")).document)
            await asyncio.sleep(6)
            told.append((slow, midst, by_node((await status_of(stage.client, "svc", NS, "biz1")).document)))
        load.cancel()
        return first, told, lost

    first, told, lost = play(story)
    assert first == dict.fromkeys(NODES, VERSIONS)
    before = VERSIONS
    for (slow, midst, settled), version in zip(told, ("4.1", "4.2", "4.1"), strict=True):
        assert midst == {node: before if node == slow else (version,) for node in NODES}
        assert settled == dict.fromkeys(NODES, (version,))
        before = (version,)
    assert lost == []


def test_a_watch_of_the_service_shows_every_version_it_passes_through():
    async def story(stage):
        await begin(stage)
        seen = []

        async def watch():
            async for found in follow_status(stage.client, Subject("svc", NS, "biz1")):
                seen.append(set(by_node(found.document).values()))

        watching = asyncio.create_task(watch())
        await asyncio.sleep(2)
        for version in ("4.1", "4.2", "4.1"):
            await select(stage, version)
            await asyncio.sleep(4)
        watching.cancel()
        return seen

    seen = play(story)
    settled = [next(iter(one)) for one in seen if len(one) == 1]
    assert list(dict.fromkeys(settled)) == [VERSIONS, ("4.1",), ("4.2",)]
    assert settled[-1] == ("4.1",)
