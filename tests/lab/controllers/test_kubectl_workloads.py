"""The real kubectl over StatefulSets, DaemonSets and Jobs that the lab's controllers run."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tidegate.kube import wire
from tidegate.lab.controllers.kinds import DAEMONSETS, JOBS, STATEFULSETS

from .controller_world import NAMESPACE, Cluster, Habits
from .workloads import daemon, finish, job, stateful

KUBECTL = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

STORY = [
    ("rollout status sts/web --timeout=20s", "partitioned roll out complete: 2 new pods have been updated"),
    ("get sts web", "web    2/2"),
    ("scale sts/web --replicas=3", "statefulset.apps/web scaled"),
    ("rollout status sts/web --timeout=20s", "partitioned roll out complete: 3 new pods have been updated"),
    ("set image sts/web c=app:2", "statefulset.apps/web image updated"),
    ("rollout status sts/web --timeout=20s", "partitioned roll out complete: 3 new pods have been updated"),
    ("rollout history sts/web", "2         <none>"),
    ("rollout undo sts/web", "statefulset.apps/web rolled back"),
    ("rollout status sts/web --timeout=20s", "partitioned roll out complete: 3 new pods have been updated"),
    ("get sts web -o jsonpath={.spec.template.spec.containers[0].image}", "app:1"),
    ("rollout status ds/every --timeout=20s", 'daemon set "every" successfully rolled out'),
    ("get ds every", "every   3         3         3       3            3"),
    ("rollout restart ds/every", "daemonset.apps/every restarted"),
    ("rollout status ds/every --timeout=20s", 'daemon set "every" successfully rolled out'),
    ("rollout history ds/every", "2         <none>"),
    ("get controllerrevisions", "daemonset.apps/every"),
    ("get jobs work", "work   Running   0/1"),
    ("describe job work", "Pods Statuses:    1 Active (1 Ready) / 0 Succeeded / 0 Failed"),
]


async def kubectl(arguments: str, port: int, home: Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        str(KUBECTL), f"--server=http://127.0.0.1:{port}", "-n", NAMESPACE, *arguments.split(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"HOME": str(home), "PATH": os.environ.get("PATH", "")},
    )  # fmt: skip
    said, _ = await process.communicate()
    return process.returncode, said.decode()


@pytest.mark.realtime
@pytest.mark.skipif(KUBECTL is None, reason="no kubectl on this machine")
async def test_kubectl_follows_rollouts_and_scales_and_lists(tmp_path):
    async with (
        Cluster(habits=Habits(start_seconds=0.05, stop_seconds=0.05)) as cluster,
        wire.serving(cluster.server.exchange, "127.0.0.1") as listening,
    ):
        every = json.loads(json.dumps(daemon()).replace('"web"', '"every"'))
        await cluster.create(STATEFULSETS, stateful(2))
        await cluster.create(DAEMONSETS, every)
        await cluster.create(JOBS, job())
        for arguments, expected in STORY:
            code, said = await kubectl(arguments, listening.port, tmp_path)
            assert (code, expected in said) == (0, True), (arguments, said)
        (pod,) = [one["metadata"]["name"] for one in await cluster.pods("job-name=work")]
        await finish(cluster, pod)
        code, said = await kubectl("wait job/work --for=condition=Complete --timeout=20s", listening.port, tmp_path)
        assert (code, said) == (0, "job.batch/work condition met\n")
        code, said = await kubectl("get jobs work", listening.port, tmp_path)
        assert "work   Complete   1/1" in said
