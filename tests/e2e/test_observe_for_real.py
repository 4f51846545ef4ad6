"""observe and ledger with processes, sockets and the wall clock: a rollout watched from beside, a drain told after."""

from __future__ import annotations

import json
import signal
import stat

import pytest
from e2e_world import eventually, finish

pytestmark = pytest.mark.realtime


def test_a_rollout_is_watched_from_beside_and_a_drain_is_told_after_it(user):
    user.environment.pop("TIDEGATE_LEDGER", None)
    user.run("lab", "up", "--detach", "--nodes", "3").expect(0)
    user.environment["KUBECONFIG"] = str(user.state / "labs" / "default" / "kubeconfig")
    user.kubectl("create", "deployment", "test", "--image=tidegate/echo:v1", "--replicas=3").expect(0)
    user.kubectl("expose", "deployment", "test", "--port=80", "--target-port=8080").expect(0)
    user.kubectl("rollout", "status", "deployment", "test", "--timeout=15s").expect(0)

    watching = user.start("observe", "deploy/test", "--for", "5m", "-o", "json")
    assert "watching the pods of deploy/test" in watching.stderr.readline()
    user.kubectl("rollout", "restart", "deployment", "test").expect(0)
    user.kubectl("rollout", "status", "deployment", "test", "--timeout=15s").expect(0)
    eventually(lambda: len(user.kubectl("get", "pods", "-l", "app=test", "-o", "name").stdout.split()) == 3)
    pod = user.kubectl("get", "pods", "-l", "app=test", "-o", "name").expect(0).stdout.split()[0]
    drained = json.loads(user.run("drain", pod, "--yes", "--reason", "why not", "-o", "json").expect(0).stdout)
    watching.send_signal(signal.SIGINT)
    found = json.loads(finish(watching).expect(0).stdout)
    rolled = [one for one in found["pods"] if one["pod"] != drained["pod"]]
    assert len(rolled) == 3
    for one in rolled:
        assert {each["observer"] for each in one["observers"] if each["kind"] == "agent"} == {
            "node-1", "node-2", "node-3",
        }  # fmt: skip
        assert 0.0 < one["exposed_seconds"] < 5.0, "an app that nobody holds is told to stop at once"
    assert found["sleep_seconds"] >= 1

    told = json.loads(user.run("ledger", pod, "-o", "json").expect(0).stdout)
    [entry] = told["items"]
    assert (entry["verb"], entry["result"], entry["why"]) == ("drain", "verified", "why not")
    assert {one["observer"] for one in entry["answers"]} == {"node-1", "node-2", "node-3"}
    assert all(0.0 < one["seconds"] < 5.0 for one in entry["answers"])
    assert stat.S_IMODE((user.state / "ledger.jsonl").stat().st_mode) == 0o600
    assert drained["pod"] in user.run("ledger").expect(0).stdout
