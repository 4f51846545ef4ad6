"""The real kubectl against the bare API server: what no client of ours would ask."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from tidegate.kube import wire
from tidegate.lab.apiserver.server import ApiServer

KUBECTL = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

STORY = [
    ("create ns sea", 0, "namespace/sea created"),
    ("create ns Bad_Name", 1, "a lowercase RFC 1123 label must consist of"),
    ("-n sea create deployment web --image=i:1 --replicas=2", 0, "deployment.apps/web created"),
    ("-n sea get deploy", 0, "web    0/2"),
    ("-n sea wait deploy/web --for=jsonpath={.spec.replicas}=2 --timeout=5s", 0, "deployment.apps/web condition met"),
    ("-n sea set image deploy/web i=i:2", 0, "deployment.apps/web image updated"),
    ("-n sea scale deploy/web --replicas=3", 0, "deployment.apps/web scaled"),
    ("-n sea get deploy web -o jsonpath={.metadata.generation}", 0, "3"),
    ("-n sea get pods -l app~web", 1, "unable to parse requirement"),
    ("-n sea delete deploy web", 0, 'deployment.apps "web" deleted from sea namespace'),
]


@pytest.mark.realtime
@pytest.mark.skipif(KUBECTL is None, reason="no kubectl on this machine")
async def test_kubectl_takes_it_for_a_cluster(tmp_path):
    server = ApiServer(random.Random(0))
    async with wire.serving(server.exchange, "127.0.0.1") as listening:
        for arguments, code, expected in STORY:
            process = await asyncio.create_subprocess_exec(
                str(KUBECTL), f"--server=http://127.0.0.1:{listening.port}", *arguments.split(),
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                env={"HOME": str(tmp_path), "PATH": os.environ.get("PATH", "")},
            )  # fmt: skip
            said, _ = await process.communicate()
            assert (process.returncode, expected in said.decode()) == (code, True), (arguments, said.decode())
