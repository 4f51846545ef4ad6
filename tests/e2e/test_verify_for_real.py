"""verify with processes, sockets and the wall clock: a thousand connections from every node within seconds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from e2e_world import eventually

pytestmark = pytest.mark.realtime


def test_0_of_1000_reach_the_pod_that_was_cut_and_a_worker_is_asked_by_a_command_in_it(user):
    jobs = Path(user.state.parent) / "jobs"
    jobs.mkdir()
    (jobs / "one").touch()
    user.run("lab", "up", "--detach", "--nodes", "3").expect(0)
    user.environment["KUBECONFIG"] = str(user.state / "labs" / "default" / "kubeconfig")
    user.kubectl("create", "deployment", "test", "--image=tidegate/echo:v1", "--replicas=3").expect(0)
    user.kubectl("expose", "deployment", "test", "--port=80", "--target-port=8080", "--type=NodePort").expect(0)
    probe = f"exec:sh -c 'test -z \"$(ls {jobs})\"'"
    worker = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "worker", "annotations": {"tidegate.dev/activity": probe}},
        "spec": {"containers": [{"name": "worker", "image": "worker:1", "command": ["sleep", "1000"]}]},
    }  # fmt: skip
    (jobs.parent / "worker.json").write_text(json.dumps(worker))
    user.kubectl("create", "-f", str(jobs.parent / "worker.json")).expect(0)
    user.kubectl("rollout", "status", "deployment", "test", "--timeout=15s").expect(0)
    pod = user.kubectl("get", "pods", "-l", "app=test", "-o", "name").expect(0).stdout.split()[0]
    user.run("verify", pod, "--probe", "30", "--timeout", "15s").expect(1)

    user.kubectl("label", "--overwrite", pod, "app=test-offline").expect(0)
    began = time.monotonic()
    done = user.run("verify", pod, "--service", "test", "--probe", "1000", "-o", "json")
    found = json.loads(done.expect(0).stdout)
    assert time.monotonic() - began < 15  # 6,000 connections
    assert {(one["node"], one["via"]) for one in found["probes"]} == {
        (f"node-{n}", via) for n in (1, 2, 3) for via in ("cluster-ip", "node-port")
    }
    assert all((one["opened"], one["reached"], one["unmatched"]) == (1000, 0, 0) for one in found["probes"])

    draining = user.start("drain", "pod/worker", "--yes", "--timeout", "15s", "-o", "json")
    eventually(lambda: "tidegate.dev/drain" in user.kubectl("get", "pod", "worker", "-o", "yaml").stdout)
    assert draining.poll() is None
    (jobs / "one").unlink()
    stdout, _ = draining.communicate(timeout=20)
    assert (json.loads(stdout)["result"], draining.returncode) == ("verified", 0)
