"""How a pod ends: the hook, the grace period, the signals, in the real kubelet's order and arithmetic.

Figures without a comment were measured on a real kubelet 1.36.2.
"""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.kube.api import PODS, Patch

from .kubelet_world import Gate, container, node, readiness, status_of

GATE = {"preStop": {"httpGet": {"path": "/gate/app", "port": 15299}}}
STUBBORN = [{"name": "ON_SIGTERM", "value": "ignore"}]


def gated(name="app", **fields):
    hook = {"preStop": {"httpGet": {"path": f"/gate/{name}", "port": 15299}}}
    return container(name, lifecycle=hook, **fields)


def test_a_held_gate_holds_sigterm():
    async def story():
        async with node() as world:
            gate = Gate(seconds=3.0)
            await world.serve_gate(gate)
            await world.bind("web", gated())
            await world.ready("web")
            asked = world.now
            await world.delete("web")
            gone = await world.gone("web")
            assert 3.0 <= gone - asked < 3.1
            [(called, line)] = gate.calls
            assert called - asked < 0.01
            assert line == "GET /gate/app HTTP/1.1"
            [headers] = gate.headers  # but for the address, those of a real 1.36.2
            assert headers["host"].endswith(":15299") and headers["user-agent"] == "kube-lifecycle/1.36"
            assert (headers["accept"], headers["accept-encoding"]) == ("*/*", "gzip")
            [term] = world.at("signal-sent")
            assert 3.0 <= term - asked < 3.01
            assert [entry["outcome"] for entry in world.journal.of("hook-ended")] == ["done"]

    vtime.run(story())


@pytest.mark.parametrize("status", [200, 403, 404, 500, 503])
def test_any_http_status_of_a_hook_is_success(status):
    async def story():
        async with node() as world:
            await world.serve_gate(Gate(seconds=1.0, status=status))
            await world.bind("web", gated())
            await world.ready("web")
            await world.delete("web")
            await world.gone("web")
            assert await world.events("FailedPreStopHook") == []
            assert [entry["outcome"] for entry in world.journal.of("hook-ended")] == ["done"]

    vtime.run(story())


def test_a_refused_hook_fails_open_with_an_event():
    async def story():
        async with node() as world:
            await world.bind("web", gated())
            await world.ready("web")
            asked = world.now
            await world.delete("web")
            assert await world.gone("web") - asked < 0.1
            assert await world.events("FailedPreStopHook") == ["PreStopHook failed"]

    vtime.run(story())


def test_a_hook_whose_connection_is_lost_fails_open():
    async def story():
        async with node() as world:

            async def hang_up(reader, writer):
                await reader.readline()
                await asyncio.sleep(2.0)
                writer.close()

            world.gate_address = ("127.0.0.1", 15299)
            await asyncio.start_server(hang_up, *world.gate_address)
            await world.bind("web", gated())
            await world.ready("web")
            asked = world.now
            await world.delete("web")
            assert 2.0 <= await world.gone("web") - asked < 2.1
            assert await world.events("FailedPreStopHook") == ["PreStopHook failed"]

    vtime.run(story())


def test_a_hook_longer_than_the_grace_period_is_abandoned_and_its_connection_stays_open():
    async def story():
        async with node() as world:
            gate = Gate(seconds=60.0)
            await world.serve_gate(gate)
            await world.bind("web", gated(env=STUBBORN), terminationGracePeriodSeconds=20)
            await world.ready("web")
            asked = world.now
            await world.delete("web")
            gone = await world.gone("web")
            assert [entry["signal"] for entry in world.journal.of("signal-sent")] == ["SIGTERM", "SIGKILL"]
            term, kill = world.at("signal-sent")
            assert 20.0 <= term - asked < 20.1
            assert 22.0 <= kill - asked < 22.1  # never less than 2 s between the two
            assert 22.0 <= gone - asked < 22.2
            assert gate.closed_at == []
            assert [entry["outcome"] for entry in world.journal.of("hook-ended")] == ["abandoned"]
            assert await world.events("FailedPreStopHook") == []
            await asyncio.sleep(45)
            assert 60.0 <= gate.closed_at[0] - asked < 60.1  # the gate ended it, not the kubelet

    vtime.run(story())


def test_the_time_a_hook_took_is_deducted_in_whole_seconds():
    async def story():
        async with node() as world:
            await world.serve_gate(Gate(seconds=3.9))
            await world.bind("web", gated(env=STUBBORN), terminationGracePeriodSeconds=10)
            await world.ready("web")
            asked = world.now
            await world.delete("web")
            await world.gone("web")
            term, kill = world.at("signal-sent")
            assert 3.9 <= term - asked < 4.0
            assert 7.0 <= kill - term < 7.01

    vtime.run(story())


def test_both_containers_hooks_start_together_and_each_waits_for_its_own():
    async def story():
        async with node() as world:
            gate = Gate(seconds=2.0)
            await world.serve_gate(gate)
            proxy = gated("proxy", env=[{"name": "PORT", "value": "8081"}])
            await world.bind("web", gated("app"), proxy, container("plain", command=["sleep", "1000"]))
            await world.ready("web")
            asked = world.now
            await world.delete("web")
            await world.gone("web")
            assert sorted(line for _, line in gate.calls) == ["GET /gate/app HTTP/1.1", "GET /gate/proxy HTTP/1.1"]
            assert max(at for at, _ in gate.calls) - asked < 0.01
            [plain] = world.at("signal-sent", container="plain")
            [app] = world.at("signal-sent", container="app")
            assert (round(plain - asked), round(app - asked)) == (0, 2)

    vtime.run(story())


def test_readiness_goes_on_while_liveness_stops():
    async def story():
        async with node() as world:
            await world.serve_gate(Gate(seconds=30.0))
            dead = {"exec": {"command": ["false"]}, "periodSeconds": 1, "initialDelaySeconds": 5}
            await world.bind(
                "web", gated(readinessProbe=readiness(1), livenessProbe=dead), terminationGracePeriodSeconds=60
            )
            await world.ready("web")
            await world.delete("web")
            await asyncio.sleep(20)
            pod = await world.pod("web")
            assert status_of(pod)["ready"] is True
            assert await world.events("Unhealthy") == []
            assert status_of(pod)["restartCount"] == 0

    vtime.run(story())


def test_a_shortened_grace_period_does_not_interrupt_a_running_hook():
    async def story():
        async with node() as world:
            await world.serve_gate(Gate(seconds=8.0))
            await world.bind("web", gated())
            await world.ready("web")
            asked = world.now
            await world.delete("web")
            await asyncio.sleep(1)
            await world.delete("web", grace_seconds=3)
            assert 8.0 <= await world.gone("web") - asked < 8.1

    vtime.run(story())


def test_a_grace_period_of_the_delete_call_counts():
    async def story():
        async with node() as world:
            await world.bind("web", container(env=STUBBORN))
            await world.ready("web")
            asked = world.now
            await world.delete("web", grace_seconds=5)
            assert 5.0 <= await world.gone("web") - asked < 5.1

    vtime.run(story())


def test_a_force_deleted_pod_is_torn_down_as_an_orphan_with_its_own_grace_period():
    async def story():
        async with node() as world:
            await world.serve_gate(Gate(seconds=1.0))
            await world.bind("web", gated(env=STUBBORN), terminationGracePeriodSeconds=7)
            await world.ready("web")
            asked = world.now
            await world.delete("web", grace_seconds=0)
            assert await world.pod("web") is None
            await asyncio.sleep(20)
            term, kill = world.at("signal-sent")
            assert (round(term - asked), round(kill - asked)) == (1, 7)
            assert len(world.journal.of("process-exited")) == 1

    vtime.run(story())


def test_a_liveness_restart_runs_the_hook_without_a_deletion_timestamp():
    async def story():
        async with node() as world:
            gate = Gate(seconds=4.0)
            await world.serve_gate(gate)
            probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 3}
            await world.bind("web", gated(livenessProbe=probe))
            await world.ready("web")
            await world.until("web", lambda pod: gate.calls)
            pod = await world.pod("web")
            assert "deletionTimestamp" not in pod["metadata"]
            assert status_of(pod)["ready"] is True  # and its endpoint stays ready, all through the hold
            pod = await world.until("web", lambda pod: status_of(pod)["restartCount"] == 1)
            assert 3.0 <= gate.calls[0][0] < 3.1
            assert 7.0 <= world.now < 7.1
            assert status_of(pod)["lastState"]["terminated"]["exitCode"] == 143
            assert await world.events("Killing") == ["Container app failed liveness probe, will be restarted"]

    vtime.run(story())


def test_a_hook_held_on_a_liveness_restart_stalls_a_later_delete():
    async def story():
        async with node() as world:
            gate = Gate(seconds=10.0)
            await world.serve_gate(gate)
            probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
            await world.bind("web", gated(livenessProbe=probe))
            await world.until("web", lambda pod: gate.calls)
            held = world.now
            await world.delete("web")
            await world.gone("web")
            assert 10.0 <= world.now - held < 10.2
            assert len(gate.calls) == 1

    vtime.run(story())


def test_a_probes_own_grace_period_counts_for_its_restarts():
    async def story():
        async with node() as world:
            probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
            probe["terminationGracePeriodSeconds"] = 4
            await world.bind("web", container(env=STUBBORN, livenessProbe=probe))
            await world.ready("web")
            await world.until("web", lambda pod: status_of(pod)["restartCount"] == 1)
            term, kill = world.at("signal-sent")[:2]
            assert 4.0 <= kill - term < 4.1

    vtime.run(story())


@pytest.mark.parametrize(
    ("hook", "seconds"), [({"sleep": {"seconds": 5}}, 5), ({"exec": {"command": ["sleep", "2"]}}, 2)]
)
def test_sleep_and_exec_hooks_take_their_time(hook, seconds):
    async def story():
        async with node() as world:
            await world.bind("web", container(lifecycle={"preStop": hook}))
            await world.ready("web")
            asked = world.now
            await world.delete("web")
            assert seconds <= await world.gone("web") - asked < seconds + 0.1

    vtime.run(story())


def test_a_failing_exec_hook_fails_open_with_an_event():
    async def story():
        async with node() as world:
            await world.bind("web", container(lifecycle={"preStop": {"exec": {"command": ["false"]}}}))
            await world.ready("web")
            await world.delete("web")
            await world.gone("web")
            assert await world.events("FailedPreStopHook") == ["PreStopHook failed"]

    vtime.run(story())


def test_sidecars_get_sigterm_after_the_main_containers_and_in_reverse():
    async def story():
        async with node() as world:
            idle = {"command": ["sleep", "1000"], "restartPolicy": "Always"}
            sidecars = [container(name, **idle) for name in ("first", "second")]
            drained = container(lifecycle={"preStop": {"sleep": {"seconds": 3}}})
            await world.bind("web", drained, initContainers=sidecars)
            await world.ready("web")
            await world.delete("web")
            await world.gone("web")
            order = [entry["container"] for entry in world.journal.of("signal-sent")]
            assert order == ["app", "second", "first"]

    vtime.run(story())


def test_the_final_delete_meets_only_the_pod_it_means():
    """A pod force-deleted and made again under the same name while the old process still ends."""

    async def story():
        async with node() as world:
            await world.bind("web", container(lifecycle={"preStop": {"sleep": {"seconds": 5}}}))
            old = await world.ready("web")
            await world.delete("web")
            await asyncio.sleep(1)
            await world.delete("web", grace_seconds=0)
            await world.bind("web")
            new = await world.ready("web")
            await asyncio.sleep(20)
            pod = await world.pod("web")
            assert pod["metadata"]["uid"] == new["metadata"]["uid"] != old["metadata"]["uid"]
            assert pod["status"]["podIP"] != old["status"]["podIP"]
            assert world.journal.of("process-exited")[0]["uid"] == old["metadata"]["uid"]

    vtime.run(story())


def test_conditions_of_others_survive_the_kubelets_patches():
    async def story():
        async with node() as world:
            gates = [{"conditionType": "tidegate.dev/ready"}]
            await world.bind("web", readinessGates=gates)
            pod = await world.until("web", lambda pod: pod["status"]["phase"] == "Running")
            entry = next(item for item in pod["status"]["conditions"] if item["type"] == "Ready")
            assert (entry["status"], entry["reason"]) == ("False", "ReadinessGatesNotReady")
            body = {"status": {"conditions": [{"type": "tidegate.dev/ready", "status": "True"}]}}
            await world.api.patch(PODS, "web", Patch(body, "strategic", "status"), "default")
            pod = await world.ready("web")
            assert "tidegate.dev/ready" in [item["type"] for item in pod["status"]["conditions"]]

    vtime.run(story())
