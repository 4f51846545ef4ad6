"""A Deployment behind a Service on a real control plane, and the command line beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass

from tests.realcluster.fake_kubelet import NODE, fake_kubelet
from tests.realcluster.objects import deployment, service

from tidegate.kube.api import DEPLOYMENTS, ENDPOINTSLICES, NAMESPACES, PODS, SERVICES, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.connect import open_api


@dataclass
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str


@dataclass
class Scene:
    """A Deployment of three pods behind a Service, made Ready by a fake kubelet."""

    api: KubeClient
    namespace: str
    kubeconfig: str

    async def names(self):
        items = (await self.api.list(PODS, Selection(self.namespace, "app=web"))).items
        return [one["metadata"]["name"] for one in items if not one["metadata"].get("deletionTimestamp")]

    async def routed(self):
        """Addresses that the slices call ready."""
        slices = (await self.api.list(ENDPOINTSLICES, Selection(self.namespace))).items
        return [
            address
            for one in slices
            for endpoint in one.get("endpoints") or ()
            if endpoint["conditions"].get("ready")
            for address in endpoint["addresses"]
        ]

    async def until(self, condition, seconds=15.0):
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.02)

    async def start(self, *words):
        command = [sys.executable, "-m", "tidegate", *words, "-n", self.namespace]
        env = {**os.environ, "KUBECONFIG": self.kubeconfig}
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(*command, env=env, stdin=pipe, stdout=pipe, stderr=pipe)

    async def tidegate(self, *words):
        process = await self.start(*words)
        ending = asyncio.create_task(process.communicate())
        done, _ = await asyncio.wait((ending,), timeout=20)
        if not done:
            process.kill()
        out, err = await ending
        assert done, f"not ended after 20 s: {' '.join(words)}\n{out.decode()}{err.decode()}"
        return Ran(process.returncode, out.decode(), err.decode())


@contextlib.asynccontextmanager
async def scene(plane, namespace, replicas=3, start_seconds=0.0):
    kubeconfig = str(plane.kubeconfig)
    async with open_api(kubeconfig=kubeconfig) as api:
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        async with fake_kubelet(api, namespace, start_seconds):
            wanted = deployment("web", replicas=replicas)
            wanted["spec"]["template"]["spec"]["nodeName"] = NODE
            await api.create(SERVICES, service("web"), namespace)
            await api.create(DEPLOYMENTS, wanted, namespace)
            found = Scene(api, namespace, kubeconfig)

            async def is_routed():
                return len(await found.routed()) == replicas

            await found.until(is_routed)
            yield found
