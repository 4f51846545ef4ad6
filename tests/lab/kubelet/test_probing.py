"""Probes over time: when they run, what they settle."""

from __future__ import annotations

import asyncio

from tidegate import vtime

from .kubelet_world import condition, container, node, readiness, status_of


class App:
    """Stands in for the workload: answers 200 or 503 and remembers when it was asked."""

    def __init__(self):
        self.status = 200
        self.asked = []
        self.delay = 0.0

    async def serve(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        self.asked.append((asyncio.get_running_loop().time(), writer.get_extra_info("peername")[0]))
        await asyncio.sleep(self.delay)
        writer.write(f"HTTP/1.1 {self.status} X\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()


async def served(world, probe_fields):
    app = App()
    await asyncio.start_server(app.serve, "127.17.1.2", 9000)
    idle = {"name": "app", "image": "none", "command": ["sleep", "100000"]}
    await world.bind("web", {**idle, **probe_fields})
    return app


def http(**fields):
    return {"httpGet": {"path": "/", "port": 9000}, "periodSeconds": 1, **fields}


def test_readiness_probes_come_from_the_nodes_address_every_period():
    async def story():
        async with node() as world:
            app = await served(world, {"readinessProbe": http(periodSeconds=2)})
            await asyncio.sleep(9)
            assert {source for _, source in app.asked} == {"127.16.0.11"}
            first, *rest = [at for at, _ in app.asked]
            assert first < 0.05  # as soon as the container runs
            assert [round(at, 1) for at in rest] == [2.0, 4.0, 6.0, 8.0]

    vtime.run(story())


def test_a_pod_is_unready_only_after_the_failure_threshold_and_ready_after_the_success_threshold():
    async def story():
        async with node() as world:
            app = await served(world, {"readinessProbe": http(failureThreshold=3, successThreshold=2)})
            await world.ready("web")
            assert 1.0 <= world.now < 1.1
            app.status = 503
            await world.until("web", lambda pod: condition(pod, "Ready") == "False")
            assert 4.0 <= world.now < 4.1
            assert await world.events("Unhealthy") == [
                "Readiness probe failed: HTTP probe failed with statuscode: 503 x3"
            ]
            app.status = 200
            await world.ready("web")
            assert 6.0 <= world.now < 6.1

    vtime.run(story())


def test_nothing_is_probed_before_the_initial_delay():
    async def story():
        async with node() as world:
            app = await served(world, {"readinessProbe": http(periodSeconds=2, initialDelaySeconds=5)})
            await world.ready("web")
            assert 6.0 <= app.asked[0][0] < 6.1  # the first tick after the delay

    vtime.run(story())


def test_a_slow_answer_is_a_failed_probe():
    async def story():
        async with node() as world:
            app = await served(world, {"readinessProbe": http(periodSeconds=5, timeoutSeconds=1)})
            app.delay = 1.5
            await asyncio.sleep(4)
            [message] = await world.events("Unhealthy")
            assert message.endswith("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")

    vtime.run(story())


def test_other_probes_wait_for_the_startup_probe():
    async def story():
        async with node() as world:
            app = await served(
                world, {"startupProbe": http(failureThreshold=30), "livenessProbe": http(), "readinessProbe": http()}
            )
            app.status = 500
            await asyncio.sleep(5.5)
            assert len(app.asked) == 5
            pod = await world.pod("web")
            assert (status_of(pod)["started"], status_of(pod)["ready"]) == (False, False)
            app.status = 200
            await world.ready("web")
            assert 6.0 <= world.now < 6.1  # readiness is asked at once when the startup probe has passed

    vtime.run(story())


def test_a_failed_startup_probe_restarts_the_container():
    async def story():
        async with node() as world:
            app = await served(world, {"startupProbe": http(failureThreshold=3)})
            app.status = 500
            await world.until("web", lambda pod: status_of(pod)["restartCount"] == 1)
            assert 3.0 <= world.now < 3.1
            assert await world.events("Killing") == ["Container app failed startup probe, will be restarted"]

    vtime.run(story())


def test_a_hanging_liveness_probe_restarts_after_three_failures_by_default():
    async def story():
        async with node() as world:
            app = await served(world, {"livenessProbe": {"tcpSocket": {"port": 9001}}})
            await world.until("web", lambda pod: status_of(pod)["restartCount"] == 1, 100)
            assert 30.0 <= world.now < 30.1
            assert app.asked == []

    vtime.run(story())


def test_exec_probes_run_in_the_container():
    async def story():
        async with node() as world:
            probe = {"exec": {"command": ["sh", "-c", "sleep 0.5; exit 0"]}, "periodSeconds": 1}
            await world.bind("web", container(readinessProbe=probe))
            await world.ready("web")
            assert 0.5 <= world.now < 0.6

    vtime.run(story())


def test_a_port_may_be_named():
    async def story():
        async with node() as world:
            ports = [{"name": "web", "containerPort": 8080}]
            probe = readiness(1, httpGet={"path": "/healthz", "port": "web"})
            await world.bind("web", container(ports=ports, readinessProbe=probe))
            await world.ready("web")

    vtime.run(story())
