"""The operator's process on a real control plane: Releases carried out, its Lease given up, its finalizer resolved."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import urllib.request

import pytest
from tests.realcluster.definitions import defined
from tests.realcluster.scene import scene

from tidegate.kube.api import DEPLOYMENTS, EVENTS, LEASES, NAMESPACES, RELEASES, Patch, Selection
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request
from tidegate.model.names import SYSTEM_NAMESPACE

pytestmark = pytest.mark.realcluster
PROCEED = {"ungated": "proceed", "onUnverified": "proceed"}
"""A fake kubelet calls no hooks, so nothing can be verified here."""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.asynccontextmanager
async def operating(plane, name="operator-a"):
    """A process of ``tidegate operator``. Yields (process, port, lines)."""
    port = free_port()
    env = {
        **os.environ,
        "KUBECONFIG": str(plane.kubeconfig),
        "TIDEGATE_POD": name,
        "TIDEGATE_HOST": "127.0.0.1",
        "TIDEGATE_HEALTH_PORT": str(port),
        "TIDEGATE_METRICS_PORT": str(port),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidegate", "operator", env=env, stderr=asyncio.subprocess.PIPE
    )
    lines = []

    async def listen():
        async for line in process.stderr:
            lines.append(json.loads(line))

    listening = asyncio.create_task(listen())
    try:
        yield process, port, lines
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


async def asked(port, path):
    def read():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read().decode()

    return await asyncio.to_thread(read)


async def release_of(here, **spec):
    metadata = {"name": "web", "namespace": here.namespace}
    obj = {"apiVersion": RELEASES.api_version, "kind": "Release", "metadata": metadata}
    return await here.api.create(RELEASES, {**obj, "spec": {"workload": "web", **PROCEED, **spec}}, here.namespace)


async def until(here, phase, seconds=60):
    async with asyncio.timeout(seconds):
        while True:
            found = await here.api.get(RELEASES, "web", here.namespace)
            status = found.get("status") or {}
            if status.get("phase") == phase and status.get("generation") == found["metadata"]["generation"]:
                return found
            await asyncio.sleep(0.1)


async def test_the_process_carries_out_a_release_and_leaves_in_order(real_cluster):
    async with defined(real_cluster) as api, scene(real_cluster, "operator-rolls") as here:
        with contextlib.suppress(ApiError):
            await api.create(
                NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
            )
        async with operating(real_cluster) as (process, port, lines):
            old = await here.names()
            await release_of(here, images={"app": "registry.example/web:2"})
            done = await until(here, "done")
            assert done["metadata"]["finalizers"] == ["tidegate.dev/release"]
            assert not {*old} & {*await here.names()}
            assert done["status"]["ready"] == "3/3"
            assert await asked(port, "/readyz") == "ok\n"
            metrics = await asked(port, "/metrics")
            assert 'tidegate_releases{phase="done"} 1.0' in metrics and "tidegate_leader 1.0" in metrics
            events = (await api.list(EVENTS, Selection(here.namespace))).items
            assert "Done" in {one["reason"] for one in events if one["involvedObject"]["kind"] == "Release"}
            # Somebody else's tool changes the Deployment: that is another target, and what is not ours stays.
            image = [
                {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "registry.example/web:3"}
            ]
            await api.patch(RELEASES, "web", Patch({"spec": {"images": None}}), here.namespace)
            await api.patch(DEPLOYMENTS, "web", Patch(image, "json"), here.namespace)
            await asyncio.sleep(1)
            await until(here, "done")
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert await process.wait() == 0
        lease = await api.get(LEASES, "tidegate-operator", SYSTEM_NAMESPACE)
        assert not lease["spec"].get("holderIdentity")
        assert not [one for one in lines if one["level"] == "error" or "a bug" in one["message"]]


async def test_a_release_that_is_deleted_mid_way_is_gone_and_its_deployment_goes_on(real_cluster):
    async with defined(real_cluster) as api, scene(real_cluster, "operator-deletes", start_seconds=0.5) as here:
        async with operating(real_cluster, "operator-b"):
            old = await here.names()
            await release_of(here, images={"app": "registry.example/web:2"})
            await here.until(lambda: _is_begun(here), 30)
            await api.delete(RELEASES, "web", here.namespace)

            async def is_over():
                try:
                    await api.get(RELEASES, "web", here.namespace)
                except ApiError as error:
                    names = await here.names()
                    return error.is_not_found and len(names) == 3 and not {*old} & {*names}
                return False

            await here.until(is_over, 60)
            found = await api.get(DEPLOYMENTS, "web", here.namespace)
            assert not found["spec"].get("paused")


async def _is_begun(here):
    found = await here.api.get(DEPLOYMENTS, "web", here.namespace)
    return found["metadata"]["generation"] > 1


async def applied(here, image):
    """The Deployment as a GitOps tool applies it: server-side, under its own name."""
    container = {"name": "app", "image": image}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": here.namespace},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    headers = {"content-type": "application/apply-patch+yaml"}
    query = (("fieldManager", "argocd"), ("force", "true"))
    path = DEPLOYMENTS.path(here.namespace, "web")
    answer = await here.api.request(Request("PATCH", path, query, headers, json.dumps(body).encode()))
    return json.loads(await answer.read())


async def test_a_release_follows_what_a_gitops_tool_applies_and_nobody_contests_a_field(real_cluster):
    async with defined(real_cluster), scene(real_cluster, "operator-gitops") as here:
        async with operating(real_cluster, "operator-c"):
            await release_of(here)
            await until(here, "done")
            old = await here.names()
            before = await applied(here, "registry.example/web:2")
            await asyncio.sleep(1)
            await until(here, "done")
            assert not {*old} & {*await here.names()}
            await applied(here, "registry.example/web:2")
            await asyncio.sleep(3)
            after = await here.api.get(DEPLOYMENTS, "web", here.namespace)
            assert after["metadata"]["generation"] == before["metadata"]["generation"], "what was applied stays applied"
