"""Containers that crash, finish, wait for others, or cannot start at all."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tidegate import vtime
from tidegate.kube.api import CONFIGMAPS
from tidegate.lab.runtime.spec import StartError

from .kubelet_world import condition, container, node, status_of, waiting_for


def command(*argv, name="app", **fields):
    return {"name": name, "image": "busybox", "command": list(argv), **fields}


def test_a_crashing_container_is_restarted_with_a_growing_back_off():
    async def story():
        async with node() as world:
            await world.bind("web", command("false"))
            pod = await world.until("web", lambda pod: waiting_for(pod) == "CrashLoopBackOff")
            waiting = status_of(pod)["state"]["waiting"]
            assert waiting["reason"] == "CrashLoopBackOff"
            assert waiting["message"].startswith("back-off 10s restarting failed container=app pod=web_default(")
            assert pod["status"]["phase"] == "Running"
            await asyncio.sleep(2000)
            starts = world.at("process-started")
            gaps = [round(after - before) for before, after in itertools.pairwise(starts)]
            assert gaps[:8] == [0, 10, 20, 40, 80, 160, 300, 300]
            pod = await world.pod("web")
            assert status_of(pod)["restartCount"] == len(starts) - 1
            assert "back-off 5m0s" in status_of(pod)["state"]["waiting"]["message"]

    vtime.run(story())


def test_a_long_run_resets_the_back_off():
    async def story():
        async with node() as world:
            await world.bind("web", command("sh", "-c", "sleep 700; exit 1"))
            await asyncio.sleep(3000)
            starts = world.at("process-started")
            assert [round(after - before) for before, after in itertools.pairwise(starts)] == [
                700,
                700,
                700,
                700,
            ]

    vtime.run(story())


@pytest.mark.parametrize(
    ("policy", "argv", "phase", "restarts"),
    [
        ("Never", ("true",), "Succeeded", 0),
        ("Never", ("false",), "Failed", 0),
        ("OnFailure", ("true",), "Succeeded", 0),
        ("OnFailure", ("false",), "Running", 2),
        ("Always", ("true",), "Running", 2),
    ],
)
def test_the_restart_policy_decides_what_an_exit_means(policy, argv, phase, restarts):
    async def story():
        async with node() as world:
            await world.bind("job", command(*argv), restartPolicy=policy)
            await asyncio.sleep(15)
            pod = await world.pod("job")
            assert pod["status"]["phase"] == phase
            assert status_of(pod)["restartCount"] == restarts
            assert condition(pod, "Ready") == "False"

    vtime.run(story())


def test_a_finished_pod_gives_its_address_back_and_its_deletion_is_immediate():
    async def story():
        async with node() as world:
            await world.bind("job", command("true"), restartPolicy="Never")
            await world.until("job", lambda pod: pod["status"].get("phase") == "Succeeded")
            await world.delete("job")
            assert await world.pod("job") is None
            await world.bind("web")
            pod = await world.ready("web")
            assert pod["status"]["podIP"] == "127.17.1.3"  # the freed one is handed out last

    vtime.run(story())


def test_an_image_the_lab_does_not_have_says_what_to_do():
    async def story():
        async with node() as world:
            await world.bind("web", {"name": "app", "image": "nginx:1.29"})

            pod = await world.until("web", lambda pod: waiting_for(pod) == "ErrImagePull")
            assert "tidegate/echo:TAG" in status_of(pod)["state"]["waiting"]["message"]
            assert pod["status"]["phase"] == "Pending"
            await world.until("web", lambda pod: waiting_for(pod) == "ImagePullBackOff")
            assert await world.events("BackOff") == ['Back-off pulling image "nginx:1.29"']
            await world.delete("web")
            await world.gone("web")

    vtime.run(story())


def test_a_command_that_does_not_exist_is_a_start_error():
    async def story():
        async with node() as world:

            async def refuse(spec):
                raise StartError(f'exec: "{spec.argv[0]}": executable file not found in $PATH')

            world.runtime.start = refuse
            await world.bind("web", command("nope"))
            pod = await world.until("web", lambda pod: status_of(pod)["lastState"])
            ended = status_of(pod)["lastState"]["terminated"]
            assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
            assert "executable file not found" in ended["message"]

    vtime.run(story())


def test_init_containers_run_one_after_another_before_the_main_ones():
    async def story():
        async with node() as world:
            inits = [command("sleep", "1", name="one"), command("sleep", "2", name="two")]
            await world.bind("web", initContainers=inits)
            pod = await world.until("web", lambda pod: condition(pod, "Initialized") == "False")
            assert pod["status"]["phase"] == "Pending"
            assert status_of(pod)["state"]["waiting"]["reason"] == "PodInitializing"
            pod = await world.ready("web")
            assert world.at("process-started", container="two")[0] >= world.at("process-exited", container="one")[0]
            assert world.at("process-started", container="app")[0] >= world.at("process-exited", container="two")[0]
            assert 3.0 <= world.now < 3.2
            assert status_of(pod, "one")["state"]["terminated"]["reason"] == "Completed"

    vtime.run(story())


def test_a_failing_init_container_is_retried_and_with_restart_policy_never_fails_the_pod():
    async def story():
        async with node() as world:
            bad = [command("false", name="init")]
            await world.bind("again", initContainers=bad)
            await world.bind("once", initContainers=bad, restartPolicy="Never")
            await asyncio.sleep(25)
            again, once = await world.pod("again"), await world.pod("once")
            assert (again["status"]["phase"], status_of(again, "init")["restartCount"]) == ("Pending", 2)
            assert (once["status"]["phase"], status_of(once, "init")["restartCount"]) == ("Failed", 0)
            assert world.at("process-started", container="app") == []

    vtime.run(story())


def test_a_sidecar_starts_before_the_main_container_and_outlives_its_crash():
    async def story():
        async with node() as world:
            sidecar = command("sleep", "2", name="side", restartPolicy="Always")
            await world.bind("web", initContainers=[sidecar])
            await world.ready("web")
            await asyncio.sleep(5)
            pod = await world.pod("web")
            assert status_of(pod, "side")["restartCount"] == 1
            assert status_of(pod)["restartCount"] == 0
            assert world.at("process-started", container="side")[0] <= world.at("process-started", container="app")[0]
            assert condition(pod, "Initialized") == "True"

    vtime.run(story())


def test_a_missing_config_map_keeps_the_container_waiting_until_it_is_there():
    async def story():
        async with node() as world:
            key = {"configMapKeyRef": {"name": "settings", "key": "latency"}}
            await world.bind("web", container(env=[{"name": "LATENCY_MS", "valueFrom": key}]))
            pod = await world.until("web", lambda pod: "CreateContainerConfigError" in str(pod["status"]))
            assert status_of(pod)["state"]["waiting"]["message"] == 'configmap "settings" not found'
            settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
            await world.api.create(CONFIGMAPS, {**settings, "data": {"latency": "5"}}, "default")
            await world.ready("web")

    vtime.run(story())


def test_a_program_that_finds_its_port_taken_is_told_to_bind_its_own_address():
    async def story():
        async with node() as world:
            await asyncio.start_server(lambda reader, writer: None, "127.17.1.2", 8080)
            await world.bind("web")
            await world.until("web", lambda pod: waiting_for(pod) == "CrashLoopBackOff")
            [message] = await world.events("AddressInUse")
            assert "bind $POD_IP (127.17.1.2)" in message

    vtime.run(story())
