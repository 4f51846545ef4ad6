"""Ways in which pods leave beside a rolling update, each with somebody still connected."""

from __future__ import annotations

import asyncio

import pytest
from scene import asked_of, play
from stage import NS, deployment, first

from tidegate.kube.api import NAMESPACES, PODS, SERVICES, Patch


async def service_deleted(stage, name):
    await stage.api.delete(SERVICES, "echo", NS)


async def label_taken_off(stage, name):
    await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"app": "other"}}}), NS)


async def selector_changed(stage, name):
    await stage.api.patch(SERVICES, "echo", Patch({"spec": {"selector": {"app": "nothing"}}}), NS)


@pytest.mark.parametrize("undeclared", [False, True])
@pytest.mark.parametrize("isolated", [service_deleted, label_taken_off, selector_changed])
def test_a_pod_that_is_in_no_service_any_more_still_waits_for_its_connections(isolated, undeclared):
    """No slice says where it serves, but its clients of before are still there."""
    manifest = deployment()
    if undeclared:
        del manifest["spec"]["template"]["spec"]["containers"][0]["ports"]

    async def story(stage):
        name = await first(stage)
        reader, writer = await asked_of(stage, name, "/sleep?ms=9000")
        await isolated(stage, name)
        await asyncio.sleep(1)
        result, seconds = await stage.end(name)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert result["result"] == "verified"
        assert 7.5 < seconds < 9

    play(story, manifest)


def test_a_namespace_that_is_deleted_lets_its_requests_finish():
    async def story(stage):
        name = await first(stage)
        reader, writer = await asked_of(stage, name, "/sleep?ms=5000")
        names = [pod["metadata"]["name"] for pod in await stage.pods()]
        await stage.api.delete(NAMESPACES, NS)
        for one in names:
            await stage.gone(one)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert {stage.result(one)["result"] for one in names} == {"verified"}

    play(story)


def test_a_pod_that_listens_on_nothing_and_is_in_no_service_is_not_waited_for():
    manifest = deployment(replicas=2)
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    del container["ports"], container["readinessProbe"]
    container |= {"image": "busybox", "command": ["sleep", "infinity"]}
    manifest["spec"]["template"]["metadata"]["labels"] = {"app": "worker"}
    manifest["spec"]["selector"]["matchLabels"] = {"app": "worker"}

    async def story(stage):
        result, seconds = await stage.end(await first(stage))
        assert result["result"] == "verified"
        assert seconds < 1.5

    play(story, manifest)
